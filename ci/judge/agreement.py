"""How far the runs of a lesson agree: those that computed the same values in another way.

On a check whose oracle has the same arguments in two runs, both claim the same value, whatever
else differs: ranks, device, microbatches. There, what they showed is compared in full precision,
not with the expected value but with each other.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ci.judge.outcome import Outcome
from ci.lesson.lesson import Lesson
from ci.lesson.oracle import Oracle
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable, expected_value, shown_value

EXACT = ""  # the dtype of what is never rounded: whole numbers, truth values, texts


@dataclass(frozen=True)
class Difference:
    """The largest difference of two runs, relative to the largest expected value of its tensor;
    infinite where whole numbers or texts are not equal. In which check, of how many compared."""

    size: float
    check: str
    checks: int

    def __str__(self) -> str:
        return f"{self.size:.1e}" if self.size else "="


@dataclass(frozen=True)
class Matrix:
    """The differences between any two verified runs of a lesson, in values of one dtype.

    A run is called by its values of `names`, the parameters that vary. The keys of `pairs` are a
    run's number and that of an earlier one; two runs with nothing to compare are not among them.
    """

    lesson: Lesson
    dtype: str
    names: tuple[str, ...]
    runs: tuple[tuple[Value, ...], ...]
    pairs: Mapping[tuple[int, int], Difference]

    @property
    def worst(self) -> tuple[Difference, str, str]:
        """The largest difference, and the two runs that have it."""
        later, earlier = max(self.pairs, key=lambda pair: self.pairs[pair].size)
        return self.pairs[later, earlier], self.label(earlier), self.label(later)

    @property
    def compared(self) -> str:
        """How many checks were compared, from pair to pair: `22`, or `3–22`."""
        counts = {difference.checks for difference in self.pairs.values()}
        return "–".join(map(str, sorted({min(counts), max(counts)})))

    @property
    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Each run but the first, and its difference from each earlier one: `=`, `2.2e-16`, `–`."""
        for later in range(1, len(self.runs)):
            found = [self.pairs.get((later, earlier), "–") for earlier in range(later)]
            yield self.label(later), list(map(str, found))

    def label(self, run: int) -> str:
        """A run as one would type it: `world_size=2`."""
        return " ".join(f"{n}={v}" for n, v in zip(self.names, self.runs[run], strict=True))


@dataclass(frozen=True)
class _Claim:
    """What a run shows for a check, and the value that its oracle makes of these arguments."""

    shown: Comparable
    expected: Comparable
    arguments: bytes
    dtype: str  # of a Python number: that of the lesson, since it may have been a tensor's


def matrices(
    outcomes: Sequence[Outcome], oracles: Mapping[str, Mapping[str, Oracle]]
) -> list[Matrix]:
    """The matrices of a plan: of each lesson and dtype in which two verified runs share a check."""
    verified = [outcome for outcome in outcomes if outcome.status in ("verified", "unchanged")]
    runs = {name: [o for o in verified if o.run.lesson.name == name] for name in oracles}
    return [matrix for name in runs for matrix in _matrices(runs[name], oracles[name])]


def _matrices(outcomes: Sequence[Outcome], oracles: Mapping[str, Oracle]) -> Iterator[Matrix]:
    claims = [_claims(each, oracles) for each in outcomes] if len(outcomes) > 1 else []
    pairs = {(i, j): _compare(claims[i], claims[j]) for j, i in combinations(range(len(claims)), 2)}
    for dtype in sorted({dtype for found in pairs.values() for dtype in found}):
        mine = {pair: found[dtype] for pair, found in pairs.items() if dtype in found}
        members = sorted({run for pair in mine for run in pair})
        values = [outcomes[run].run.parameters for run in members]
        names = tuple(name for name in values[0] if len({each[name] for each in values}) > 1)
        runs = tuple(tuple(each[name] for name in names) for each in values)
        found = {(members.index(i), members.index(j)): mine[i, j] for i, j in mine}
        yield Matrix(outcomes[0].run.lesson, dtype, names, runs, found)


def _claims(outcome: Outcome, oracles: Mapping[str, Oracle]) -> dict[str, _Claim]:
    assert outcome.notebook, "a verified run has one"
    run, cells = outcome.run, {cell.id: cell for cell in outcome.notebook.cells}
    checks = [check for check in run.lesson.checks if check.kind != "raises"]
    shown = {check: shown_value(cells[check.cell]) for check in checks}
    givens = {check.name: shown[check].python() for check in checks if check.kind == "given"}
    known = {**run.parameters, **givens}
    return {
        check.name: _Claim(
            shown=shown[check],
            expected=expected_value(oracles[check.name].value(known)),
            arguments=pickle.dumps([known[word] for word in oracles[check.name].argument_names]),
            dtype=str(run.parameters.get("dtype", "float64")),
        )
        for check in checks
        if check.kind == "value" and oracles[check.name].argument_names  # all runs share a constant
    }


def _compare(one: Mapping[str, _Claim], other: Mapping[str, _Claim]) -> dict[str, Difference]:
    """The largest difference of two runs in each dtype that they have in common."""
    shared = [name for name in one if one[name].arguments == other[name].arguments]
    found = [(*sized, name) for name in shared for sized in _sizes(one[name], other[name])]
    differences = {}
    for dtype in {dtype for dtype, _, _ in found} - {EXACT}:
        _, size, check = max((f for f in found if f[0] in (dtype, EXACT)), key=lambda f: f[1])
        checks = {name for kind, _, name in found if kind == dtype}
        differences[dtype] = Difference(size, check, len(checks))
    return differences


def _sizes(one: _Claim, other: _Claim) -> Iterator[tuple[str, float]]:
    """Dtype and relative difference, leaf by leaf; a leaf of nothing but zeros has no scale."""
    leaves = [claim.leaves() for claim in (one.shown, other.shown, one.expected)]
    for mine, theirs, expected in zip(*leaves, strict=True):
        value, dtype = np.asarray(expected.value), mine.dtype or one.dtype
        if value.dtype.kind not in "fc":
            yield EXACT, 0.0 if np.array_equal(mine.value, theirs.value) else np.inf
            continue
        finite = np.isfinite(value)
        scale = np.max(np.abs(value[finite]), initial=0.0)
        if scale and dtype == (theirs.dtype or other.dtype):
            yield dtype, float(np.max(np.abs(mine.value[finite] - theirs.value[finite])) / scale)
