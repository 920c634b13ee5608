"""Proof that the gate bites: each mutant of the course must be noticed, or declared equivalent."""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from ci import atomic
from ci.errors import CourseError, UsageError
from ci.execute.local import Process
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.plan.planner import THREAD_VARIABLES
from ci.prove import mutants
from ci.prove.mutants import Mutant

WIDTH = 100  # the table needs it, in a log as well
NOTICED = ("differs", "error", "timed out")
STATUSES = (*NOTICED, "equivalent", "survived")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: how it was noticed and by which check or error, or why not."""

    mutant: Mutant
    lesson: str
    status: str
    by: str = ""

    def __str__(self) -> str:
        check = self.mutant.check
        because = (
            f" (it must make '{check}' differ)" if check else f" ({self.by})" if self.by else ""
        )
        return f"{self.status}: {self.mutant}{because}"


def whole(text: str, option: str) -> int:
    """A whole number from 0 on. Raises UsageError for anything else."""
    if not text.isdecimal():
        raise UsageError(f"{option} {text}: wants a whole number")
    return int(text)


def choose(path: Path, lessons: Sequence[Lesson], *, sample: int | None, seed: int) -> list[Mutant]:
    """The mutants that `path` names, and `sample` of those that operators make; None is all.

    The same seed draws the same ones.
    """
    named, made = mutants.named(path, lessons), mutants.made(path, lessons)
    if sample is not None and sample < len(made):
        made = [made[i] for i in sorted(random.Random(seed).sample(range(len(made)), sample))]
    return named + made


def prove(
    chosen: Sequence[Mutant], lessons: Sequence[Lesson], path: Path, *, jobs: int
) -> Iterator[Verdict]:
    """Try each mutant in a copy of the course, `jobs` at once, and yield what becomes of it.

    What a lesson does not notice with its default parameters, it may with those in `path`; and
    what one lesson does not notice of a rank program, another may. Raises CourseError where a
    lesson is not verified as it is.
    """
    left = list(chosen)
    said: dict[Mutant, str] = {}
    with tempfile.TemporaryDirectory(prefix="prove-") as name:
        folder = _copy(lessons[0].path.parent, Path(name))
        for lesson in lessons:
            script = folder / lesson.path.name
            for parameters in ({}, *mutants.again(path, lesson)):
                mine = [
                    m for m in left if lesson.name in m.lessons and not (parameters and m.check)
                ]
                for mutant, status, by in _try(mine, script, parameters, jobs) if mine else ():
                    said[mutant] = by
                    if status != "survived":
                        left.remove(mutant)
                        yield Verdict(mutant, lesson.name, status, by)
    for mutant in left:
        status = "equivalent" if mutant.equivalent else "survived"
        yield Verdict(mutant, mutant.lessons[0], status, mutant.equivalent or said[mutant])


def _copy(lessons: Path, folder: Path) -> Path:
    """A copy of the course to make mistakes in; an oracle reads a version in pyproject.toml."""
    (folder / "course").mkdir()
    project = lessons.parent / "pyproject.toml"
    if project.exists():
        shutil.copy(project, folder / "course")
    return Path(shutil.copytree(lessons, folder / "course" / lessons.name))


def _try(
    mine: Sequence[Mutant], script: Path, parameters: Mapping[str, Value], jobs: int
) -> Iterator[tuple[Mutant, str, str]]:
    """Each mutant of one lesson, and what its rehearsal says of it."""
    private = str(script.parents[2])
    settings = {
        **dict.fromkeys(THREAD_VARIABLES, "1"),  # a process with more threads can't be forked
        "CUDA_VISIBLE_DEVICES": "",  # nor one that has a GPU
        "MPLBACKEND": "template",  # draws nothing
        "IPYTHONDIR": private,
        "TMPDIR": private,
    }
    left = dict(enumerate(mine))
    request = {
        "script": str(script),
        "parameters": dict(parameters),
        "jobs": jobs,
        "mutants": [asdict(mutant) for mutant in mine],
    }
    process = Process("ci.prove.rehearsal", settings)
    try:
        process.send(json.dumps(request) + "\n")
        for event in map(json.loads, process.lines()):
            if fault := event.get("fault"):
                raise CourseError(f"nothing is proven: {fault}")
            yield left.pop(event["number"]), event["status"], event["by"]
        if left:
            raise CourseError(f"nothing is proven: the process of {script.stem} {process.ending()}")
    finally:
        process.close()


def status(verdicts: Sequence[Verdict]) -> int:
    """0 where each mutant was noticed or is declared equivalent, else 1."""
    return int(any(verdict.status not in (*NOTICED, "equivalent") for verdict in verdicts))


def table(verdicts: Sequence[Verdict]) -> Table:
    """How many mutants there were of each kind, and what became of them."""
    counts = Counter((v.lesson, v.mutant.kind, v.status) for v in verdicts)
    rows = dict.fromkeys(sorted((lesson, kind) for lesson, kind, _ in counts))
    names = (Column(word, no_wrap=True) for word in ("lesson", "mutants", *STATUSES))
    shown = Table(*names, box=box.SIMPLE_HEAD)
    for row in rows:
        shown.add_row(*row, *(str(counts[*row, status] or "-") for status in STATUSES))
    shown.add_section()
    total = Counter(verdict.status for verdict in verdicts)
    shown.add_row("all", str(len(verdicts)), *(str(total[status] or "-") for status in STATUSES))
    return shown


def show(verdicts: Iterable[Verdict], total: int, said: Mapping[str, str]) -> list[Verdict]:
    """Show how far it is, then the table, what may go unnoticed and why, and each survivor.

    `said` are the files that were left out, and why. Returns the verdicts.
    """
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    verdicts = list(track(verdicts, "breaking the lessons", total=total, console=console))
    console.print(table(verdicts))
    for file, reason in said.items():
        console.print(f"left out: lessons/{file}: {reason}")
    reasons = Counter(verdict.by for verdict in verdicts if verdict.status == "equivalent")
    for reason, number in reasons.items():
        console.print(f"equivalent: {number}: {reason}")
    for verdict in verdicts:
        if verdict.status == "survived":
            console.print(str(verdict))
    return verdicts


def write(verdicts: Sequence[Verdict], folder: Path) -> None:
    """Write `prove.json` into `folder`."""
    facts = [asdict(verdict) for verdict in verdicts]
    atomic.write(folder / "prove.json", json.dumps(facts, indent=1, ensure_ascii=False))
