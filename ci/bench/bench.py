"""How long it takes: our pipeline against its peers and floors, on the same notebooks.

Each round has every contender once, in an order that rotates, and a ratio is of one round: what
else the machine does then troubles both sides of it. A time counts only where the checks have shown
the same as ours.
"""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from ci.bench import stopwatch, workload
from ci.bench.contenders import Contender, Shown
from ci.bench.rows import ROWS, SMALL, TARGETS, Row, Target
from ci.bench.workload import Workload
from ci.errors import CourseError, UsageError, suggest
from ci.lesson.lesson import find_lessons, select_lessons

DISTURBED = 0.2  # the share that others may have while something is measured
QUIET = 0.1  # the share of the machine that others may have before it is called busy
LOADED = 0.5  # its load a core over the last minute, likewise
LOOK_S = 1.0
Item = TypeVar("Item")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """One execution: wall and CPU seconds, also of a single run, peak memory in MB, and the share
    of the machine that others had; `over` where the deadline ended it."""

    wall_s: float
    cpu_s: float
    run_s: float
    peak_mb: float
    foreign: float
    over: bool = False
    private_mb: float = 0.0
    private_at_end_mb: float = 0.0
    added_mb: float = 0.0


@dataclass
class Measured:
    """A row's samples, a list of rounds by contender; why others have none."""

    row: Row
    contenders: tuple[Contender, ...]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def disturbed(self, names: Iterable[str]) -> bool:
        """Whether others had too much of the machine while one of these was measured."""
        samples = [sample for name in names for sample in self.samples.get(name, ())]
        return any(sample.foreign > DISTURBED for sample in samples)


@dataclass(frozen=True)
class Judged:
    """A target, what was measured in each round, and whether it is met; `disturbed` says whether
    that can be relied on."""

    target: Target
    values: tuple[float, ...]
    disturbed: bool = False

    @property
    def verdict(self) -> str:
        """`aim reached`, `met`, `not met` or `not measured`, by the median."""
        if not self.values:
            return "not measured"
        median = statistics.median(self.values)
        if median <= self.target.aim:
            return "met" if self.target.aim == self.target.most else "aim reached"
        return "met" if median <= self.target.most else "not met"


def rounds(text: str) -> int:
    """The value of `--rounds`. Raises UsageError for what is no whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--rounds {text}: wants a whole number from 1 on")
    return int(text)


def rows(text: str) -> list[Row]:
    """The rows that a comma list names, in our order; all where it is empty.

    Raises UsageError for others.
    """
    names = [row.name for row in ROWS]
    wanted = {word.strip() for word in text.split(",") if word.strip()}
    if text and not wanted:
        raise UsageError(f"--rows {text}: names no row")
    for word in sorted(wanted - {*names}):
        raise UsageError(f"--rows {word}: no such row{suggest(word, names)}")
    return [row for row in ROWS if row.name in wanted or not wanted]


def rotated(items: Sequence[Item], number: int) -> list[Item]:
    """The same items in the same order, but `number` places further on."""
    at = number % len(items)
    return [*items[at:], *items[:at]]


def busy() -> str:
    """What to say where others use this machine, or have just done; empty where it is quiet."""
    share, waiting = psutil.cpu_percent(LOOK_S) / 100, load()[0] / (os.cpu_count() or 1)
    if share <= QUIET and waiting <= LOADED:
        return ""
    return (
        f"the machine is not quiet: others use {share:.0%} of it, with a load of {waiting:.1f} "
        "a core; look at ratios, not at times"
    )


def run(
    chosen: Sequence[Row], root: Path, small: Path, *, number: int, whole: bool, say: Say
) -> Iterator[Measured]:
    """Measure each row in `number` rounds, and yield it; `whole` brings those left out back.

    `root` is the project, `small` the script of the bench's own lesson. Raises CourseError where
    our own pipeline fails: there is nothing to compare with.
    """
    for row in chosen:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            paths = [small] if row.lessons == SMALL else find_lessons(root / "lessons")
            scripts = select_lessons(paths, row.lessons)
            work = workload.prepare(scripts, root, Path(folder, "work"), row.settings)
            yield measure(row, work, number=number, whole=whole, say=say)


def measure(row: Row, work: Workload, *, number: int, whole: bool, say: Say) -> Measured:
    """Measure one row; `say` is told how far it is."""
    back = tuple(contender for contender, _ in row.left_out.values()) if whole else ()
    measured = Measured(row, row.contenders + back)
    if not whole:
        measured.absent = {name: f"left out: {why}" for name, (_, why) in row.left_out.items()}
    for contender in measured.contenders:
        if contender.missing:
            measured.absent[contender.name] = f"missing here: {contender.missing}"
    for turn in range(number * row.repeats):
        shown: dict[str, Shown] = {}
        for contender in rotated(measured.contenders, turn):
            if contender.name not in measured.faults | measured.absent:
                say(f"{row.name}: round {turn + 1} of {number * row.repeats}: {contender.name}")
                _sample(contender, work, measured, shown)
        _compare(measured, shown)
    return measured


def _sample(
    contender: Contender, work: Workload, measured: Measured, shown: dict[str, Shown]
) -> None:
    """Have one contender executed: a sample, and what its checks have shown; or its fault."""
    first = contender is measured.contenders[0]
    try:
        sample, texts = execute(contender, work, measured.row)
        if first and sample.over:
            raise CourseError(f"{measured.row.name}: {contender.name}: not done in time")
    except CourseError as error:
        if first:
            raise
        measured.faults[contender.name] = str(error)
        measured.samples.pop(contender.name, None)
        return
    measured.samples.setdefault(contender.name, []).append(sample)
    if texts is not None:
        shown[contender.name] = texts


def execute(contender: Contender, work: Workload, row: Row) -> tuple[Sample, Shown | None]:
    """Measure one execution in a fresh folder.

    Raises CourseError, with the end of its log, for a command that fails.
    """
    part = work.first(contender.part) if contender.part else work
    start, log = part.folder / contender.start, part.folder / "log.txt"
    place = start if contender.in_place else Path(shutil.copytree(start, part.folder / "place"))
    watch = partial(
        stopwatch.measure,
        folder=place,
        environment=workload.environment(part, defaults=row.defaults),
        log=log,
        deadline_s=row.deadline_s,
    )
    try:
        if contender.before and (found := watch(contender.before)).status:
            raise CourseError(f"{row.name}: before {contender.name}: {_end(found.status, log)}")
        found = watch(contender.commands(part))
        if found.status:
            raise CourseError(f"{row.name}: {contender.name}: {_end(found.status, log)}")
        facts = asdict(found)
        del facts["status"]
        if contender.more:
            facts |= json.loads((place / contender.more).read_text(encoding="utf-8"))
        texts = contender.shown(part, place) if contender.shown and not found.over else None
        return Sample(**facts, run_s=found.wall_s / len(part.runs)), texts
    finally:
        if not contender.in_place:
            shutil.rmtree(place, ignore_errors=True)


def _end(status: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"ended with status {status}: {' | '.join(lines[-3:])}"


def _compare(measured: Measured, shown: Mapping[str, Shown]) -> None:
    """Take those out whose checks have not shown what ours have."""
    first = measured.contenders[0]
    if first.name not in shown:
        return
    for contender in measured.contenders[1:]:
        if contender.name in shown:
            ours, theirs = shown[first.name], shown[contender.name]
            if contender.part:
                ours = {name: text for name, text in ours.items() if name in theirs}
            if said := difference(ours, theirs):
                measured.faults[contender.name] = said
                measured.samples.pop(contender.name, None)


def difference(ours: Shown, theirs: Shown) -> str:
    """The first check that shows something else, and what; empty where all show the same.

    Line breaks and spaces don't count: IPython breaks what is long, `repr` does not.
    """
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        mine, other = ours.get(name, "nothing"), theirs.get(name, "nothing")
        if "".join(mine.split()) != "".join(other.split()):
            return f"differs at {name}: shows {_short(other)}, ours {_short(mine)}"
    return ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) < 60 else f"{text[:60]}…"


def values(target: Target, measured: Measured) -> list[float]:
    """The figure of a target in each round; none where a side was not measured, or too late.

    Nor where one of those that it is to be compared with was at fault: the best may be that one.
    """
    late = {name for name, many in measured.samples.items() if any(s.over for s in many)}
    if (late | measured.faults.keys()) & {target.ours, *target.against}:
        return []
    of = {name: [getattr(s, target.of) for s in many] for name, many in measured.samples.items()}
    against = [of[name] for name in target.against if name in of]
    ours = of.get(target.ours, [])
    if target.how == "value":
        return ours
    best = [min(found) for found in zip(*against, strict=True)]
    if target.how == "difference":
        return [mine - other for mine, other in zip(ours, best, strict=False)]
    return [mine / other for mine, other in zip(ours, best, strict=False)]


def judge(results: Sequence[Measured]) -> list[Judged]:
    """Each target of the rows that were measured."""
    return [
        Judged(
            target,
            tuple(values(target, measured)),
            measured.disturbed([target.ours, *target.against]),
        )
        for measured in results
        for target in TARGETS
        if target.row == measured.row.name
    ]


def load() -> tuple[float, float, float]:
    """The machine's load averages over 1, 5 and 15 minutes."""
    return os.getloadavg()


def status(results: Sequence[Measured]) -> int:
    """1 where a contender has failed or shown something else. Times are never a fault."""
    return int(any(measured.faults for measured in results))
