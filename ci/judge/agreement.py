"""How closely the runs of a lesson agree that computed the same values in different ways.

If the oracle of a check has the same arguments in two runs, both runs should show the same value,
even if their ranks, devices or microbatches differ. So the two shown values are compared in full
precision with each other, and not with the expected value.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from ci.judge.outcome import Outcome, Status
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value

if TYPE_CHECKING:  # an unchanged run starts without NumPy
    from ci.lesson.oracle import Oracle
    from ci.lesson.value import Comparable

EXACT = ""  # stands for the dtypes that are never rounded: integers, bool, text


@dataclass(frozen=True)
class Difference:
    """The largest difference of two runs, in the values of one dtype.

    `size` is relative to the largest expected value of the tensor, and infinite if integers or
    texts are unequal. `check` is the check with the difference, of `checks` that were compared.
    """

    size: float
    check: str
    checks: int

    def __str__(self) -> str:
        return f"{self.size:.1e}" if self.size else "="


@dataclass(frozen=True)
class Matrix:
    """The differences of all pairs of verified runs of a lesson, in the values of one dtype.

    `names` are the parameters that vary between runs, and `runs` their values. A key of `pairs` is
    the index of a run and that of an earlier run. Pairs without a common check are not in `pairs`.
    """

    lesson: Lesson
    dtype: str
    names: tuple[str, ...]
    runs: tuple[tuple[Value, ...], ...]
    pairs: Mapping[tuple[int, int], Difference]

    @property
    def worst(self) -> tuple[Difference, str, str]:
        """The largest difference, and the labels of its two runs."""
        later, earlier = max(self.pairs, key=lambda pair: self.pairs[pair].size)
        return self.pairs[later, earlier], self.label(earlier), self.label(later)

    @property
    def compared(self) -> str:
        """The number of checks compared: `22`, or `3–22` if it varies between pairs."""
        counts = {difference.checks for difference in self.pairs.values()}
        return "–".join(map(str, sorted({min(counts), max(counts)})))

    @property
    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Each run but the first, with its differences from earlier runs: `=`, `2.2e-16`, `–`."""
        for later in range(1, len(self.runs)):
            row = [self.pairs.get((later, earlier), "–") for earlier in range(later)]
            yield self.label(later), list(map(str, row))

    def label(self, run: int) -> str:
        """The run with this index, as typed after `-p`: `world_size=2`."""
        return " ".join(f"{n}={v}" for n, v in zip(self.names, self.runs[run], strict=True))


@dataclass(frozen=True)
class _Claim:
    """The value that a run shows for a check, the expected value, and the oracle's arguments."""

    shown: Comparable
    expected: Comparable
    arguments: bytes
    dtype: str  # of Python numbers: the dtype of the run, since they may come from a tensor


def matrices(
    outcomes: Sequence[Outcome], oracles: Mapping[str, Mapping[str, Oracle]]
) -> list[Matrix]:
    """The matrices of a plan: one per lesson and dtype in which verified runs share a check."""
    compared = (Status.VERIFIED, Status.UNCHANGED)
    verified = [outcome for outcome in outcomes if outcome.status in compared]
    by_lesson = {name: [o for o in verified if o.run.lesson.name == name] for name in oracles}
    return [matrix for name in oracles for matrix in _matrices(by_lesson[name], oracles[name])]


def _matrices(outcomes: Sequence[Outcome], oracles: Mapping[str, Oracle]) -> Iterator[Matrix]:
    claims = [_claims(outcome, oracles) for outcome in outcomes] if len(outcomes) > 1 else []
    differences = {
        (later, earlier): _compare(claims[later], claims[earlier])
        for earlier, later in _comparable(claims)
    }
    for dtype in sorted({dtype for by_dtype in differences.values() for dtype in by_dtype}):
        pairs = {pair: found[dtype] for pair, found in differences.items() if dtype in found}
        members = sorted({run for pair in pairs for run in pair})
        values = [outcomes[run].run.parameters for run in members]
        names = tuple(name for name in values[0] if len({each[name] for each in values}) > 1)
        runs = tuple(tuple(each[name] for name in names) for each in values)
        index = {run: i for i, run in enumerate(members)}
        numbered = {(index[i], index[j]): difference for (i, j), difference in pairs.items()}
        yield Matrix(outcomes[0].run.lesson, dtype, names, runs, numbered)


def _comparable(claims: Sequence[Mapping[str, _Claim]]) -> list[tuple[int, int]]:
    """The pairs of runs that share a check; a large sweep over sizes has none."""
    runs: dict[tuple[str, bytes], list[int]] = {}
    for run, by_name in enumerate(claims):
        for name, claim in by_name.items():
            runs.setdefault((name, claim.arguments), []).append(run)
    return sorted({pair for same in runs.values() for pair in combinations(same, 2)})


def _claims(outcome: Outcome, oracles: Mapping[str, Oracle]) -> dict[str, _Claim]:
    from ci.lesson.value import shown_value

    assert outcome.notebook, "a verified outcome has a notebook"
    run, cells = outcome.run, {cell.id: cell for cell in outcome.notebook.cells}
    checks = [check for check in run.lesson.checks if check.kind in ("value", "given")]
    shown = {check: shown_value(cells[check.cell]) for check in checks}
    givens = {check.name: shown[check].python() for check in checks if check.kind == "given"}
    known = {**run.parameters, **givens}
    return {
        check.name: _Claim(
            shown=shown[check],
            expected=oracles[check.name].value(known),
            arguments=pickle.dumps([known[name] for name in oracles[check.name].argument_names]),
            dtype=str(run.parameters.get("dtype", "float64")),
        )
        for check in checks
        if check.kind == "value" and oracles[check.name].argument_names  # else it is a constant
    }


def _compare(one: Mapping[str, _Claim], other: Mapping[str, _Claim]) -> dict[str, Difference]:
    """The largest difference of two runs in each dtype that they share."""
    shared = [name for name in one if one[name].arguments == other[name].arguments]
    found = [(*sized, name) for name in shared for sized in _sizes(one[name], other[name])]
    differences = {}
    for dtype in {dtype for dtype, _, _ in found} - {EXACT}:
        _, size, check = max((f for f in found if f[0] in (dtype, EXACT)), key=lambda f: f[1])
        checks = {name for kind, _, name in found if kind == dtype}
        differences[dtype] = Difference(size, check, len(checks))
    return differences


def _sizes(one: _Claim, other: _Claim) -> Iterator[tuple[str, float]]:
    """Dtype and relative difference of each leaf, except leaves whose expected values are all 0."""
    import numpy as np

    leaves = [claim.leaves() for claim in (one.shown, other.shown, one.expected)]
    for first, second, expected in zip(*leaves, strict=True):
        value, dtype = np.asarray(expected.value), first.dtype or one.dtype
        if value.dtype.kind not in "fc":
            yield EXACT, 0.0 if np.array_equal(first.value, second.value) else np.inf
            continue
        finite = np.isfinite(value)
        scale = np.max(np.abs(value[finite]), initial=0.0)
        if scale and dtype == (second.dtype or other.dtype):
            yield dtype, float(np.max(np.abs(first.value[finite] - second.value[finite])) / scale)
