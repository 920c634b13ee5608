"""`invoke bench`: how long the pipeline and others take to execute the same notebooks.

In each round every contender runs once, in an order that rotates, and a ratio is of one round, so
that other load on the machine affects both sides. A time counts only if the checks showed the same
values as those of the reference, which is the row's first contender.
"""

import json
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ci.errors import CourseError, UsageError, suggest
from ci.lesson.lesson import find_lessons, select_lessons
from ci.plan.attempts import NOTEBOOK
from tests.bench import report, stopwatch, workload
from tests.bench.definitions import ROWS, Contender, Row
from tests.bench.report import Result
from tests.bench.stopwatch import Sample
from tests.bench.workload import Workload

SMALL = Path(__file__).with_name("lessons")  # a training lesson that is not part of the course
CLASS = re.compile(r"<class'([\w.]+)'>")  # what a class is in plain Python, without spaces
Shown = Mapping[str, str]  # what the checks showed, by `notebook check`


def run(rows: str, rounds: str, root: Path, *, everyone: bool) -> int:
    """Measure rows of the project in `root`, and report. `everyone` adds who is left out otherwise.

    The exit status is 1 if a contender failed or showed other values; a time is never an error.
    Raises UsageError; CourseError if a reference fails, because nothing is left to compare.
    """
    chosen, number = parse_rows(rows), parse_rounds(rounds)
    results, console = [], report.console()
    for row in chosen:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            lessons = find_lessons(SMALL if row.lessons == "06" else root / "lessons")
            scripts = select_lessons(lessons, row.lessons)
            work = workload.prepare(scripts, root, Path(folder, "work"), row.seeds)
            results.append(measure(row, work, rounds=number, everyone=everyone))
        report.show(results[-1], console)
    for path in report.conclude(results, console, root / "build"):
        print(path.relative_to(root))
    return int(any(result.faults for result in results))


def parse_rounds(text: str) -> int:
    """The value of `--rounds`. Raises UsageError."""
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--rounds {text}: must be a whole number from 1")
    return int(text)


def parse_rows(text: str) -> list[Row]:
    """The rows that `--rows` names, in the order of bench.toml; else all. Raises UsageError."""
    names = [word.strip() for word in text.split(",") if word.strip()]
    if text and not names:
        raise UsageError(f"--rows {text}: names no row")
    for name in names:
        if name not in ROWS:
            raise UsageError(f"--rows {name}: no such row{suggest(name, [*ROWS])}")
    return [row for row in ROWS.values() if row.name in names or not names]


def measure(row: Row, work: Workload, *, rounds: int, everyone: bool) -> Result:
    """The result of a row. Raises CourseError if its reference fails."""
    result = Result(row, [*row.contenders, *(row.left_out if everyone else ())])
    result.absent |= {c.name: f"missing here: {c.missing}" for c in result.contenders if c.missing}
    if not everyone:
        result.absent |= {c.name: f"left out: {row.because}" for c in row.left_out}
    order, turns = deque(result.contenders), rounds * row.repeats
    for turn in range(1, turns + 1):
        measure_round(result, order, work, f"{row.name}: round {turn} of {turns}")
        order.rotate(-1)
    return result


def measure_round(result: Result, order: Iterable[Contender], work: Workload, title: str) -> None:
    """Add a round to a result: run the contenders in this order, then compare what they showed."""
    samples: dict[str, Sample] = {}
    shown: dict[str, Shown] = {}
    reference = result.contenders[0].name
    for contender in order:
        name = contender.name
        if name not in result.absent | result.faults:
            print(f"{title}: {name}", flush=True)
            try:
                samples[name], shown[name] = execute(contender, result.row, work)
            except CourseError as error:
                if name == reference:
                    raise CourseError(f"{result.row.name}: {name}: {error}") from None
                result.faults[name] = str(error)
    for contender in order:
        name, notebooks = contender.name, work.names[: contender.first]
        done = name in shown and not samples[name].timed_out
        if done and (fault := difference(shown[reference], shown[name], notebooks)):
            result.faults[name] = fault
    result.rounds.append(samples)


def execute(contender: Contender, row: Row, work: Workload) -> tuple[Sample, Shown]:
    """Run a contender once: its sample, and what its checks showed if it was done in time.

    Raises CourseError if one of its commands fails, or if the reference is late.
    """
    start = "project" if row.before or contender.kind == "pipeline" else "notebooks"
    folder = work.folder / start
    if not row.before:
        shutil.rmtree(work.folder / "copy", ignore_errors=True)
        folder = Path(shutil.copytree(folder, work.folder / "copy"))
    environment = work.environment(own_threads=row.own_threads)
    for template in filter(None, (row.before, contender.script)):
        script = work.script(template, contender.first)
        sample = stopwatch.measure(script, folder, environment, row.deadline_s)
    names, figures = work.names[: contender.first], folder / "figures.json"
    sample = replace(sample, run_s=sample.wall_s / len(names))
    if sample.timed_out:
        if contender == row.contenders[0]:
            raise CourseError("not done in time, so there is nothing to compare with")
        return sample, {}
    if figures.exists():
        sample = replace(sample, **json.loads(figures.read_text()))
    return sample, shown_values(contender.results, names, folder)


def shown_values(results: str, names: Sequence[str], folder: Path) -> Shown:
    """What the checks showed in the executed notebooks that a contender left in `folder`.

    Without spaces and line breaks, which differ, and with classes as a notebook shows them.
    """
    paths = [folder / results.format(name) for name in names if results]
    if results == "build/report.json":
        paths = [Path(run["attempt"], NOTEBOOK) for run in json.loads(paths[0].read_text())["runs"]]
    return {
        f"{name} {cell['metadata']['check']}": CLASS.sub(r"\1", re.sub(r"\s", "", "".join(text)))
        for name, path in zip(names, paths, strict=bool(results))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if "check" in cell["metadata"]
        for text in [
            o["data"]["text/plain"] for o in cell["outputs"] if o["output_type"] == "execute_result"
        ]
    }


def difference(expected: Shown, shown: Shown, notebooks: Sequence[str]) -> str:
    """The first check of these notebooks that shows another value than expected; else empty."""
    for check in dict.fromkeys([*expected, *shown]):
        value, wanted = (values.get(check, "nothing") for values in (shown, expected))
        if value != wanted and check.split()[0] in notebooks:
            return f"differs at {check}: shows {value:.60}, the reference {wanted:.60}"
    return ""
