"""`invoke bench`: how long the pipeline and others take to execute the same notebooks.

In each round every contender runs once, in an order that rotates, and a ratio is of one round, so
that other load on the machine affects both sides. A time counts only if the checks showed the same
values as those of the reference, which is the row's first contender.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from ci.errors import CourseError, UsageError, suggest
from ci.lesson import reader
from ci.lesson.lesson import find_lessons, select_lessons
from ci.plan.attempts import NOTEBOOK
from ci.plan.planner import THREAD_VARIABLES
from tests.bench import report, stopwatch
from tests.bench.report import ROWS, Contender, Result, Row
from tests.bench.stopwatch import Sample

SMALL = Path(__file__).with_name("lessons")  # a training lesson that is not part of the course
JOBS = 2  # notebooks in parallel, for every contender that can
SVG_FIGURES = "c = get_config()\nc.InlineBackend.figure_formats = {'svg'}\n"  # as in the pipeline
CLASS = re.compile(r"<class'([\w.]+)'>")  # what a class is in plain Python, without spaces


def run(rows: str, rounds: str, root: Path) -> int:
    """Measure rows of the project in `root`, and report.

    The exit status is 1 if a contender failed, was late or showed other values. Of a row whose
    reference fails nothing is reported, because nothing can be compared. Raises UsageError.
    """
    chosen, number = parse(rows, rounds)
    results, console, failed = [], Console(width=140, markup=False), False
    for row in chosen:
        with TemporaryDirectory(prefix="bench-") as folder:
            lessons = find_lessons(SMALL if row.lessons == "09" else root / "lessons")
            scripts = select_lessons(lessons, row.lessons)
            prepare(scripts, root, Path(folder, "work"), row.seeds)
            try:
                results.append(measure(row, Path(folder, "work"), number))
            except CourseError as error:
                console.print(str(error))
                failed = True
            else:
                report.show(results[-1], console)
    report.conclude(results, console, root / "build")
    return int(failed or any(result.faults for result in results))


def parse(rows: str, rounds: str) -> tuple[list[Row], int]:
    """The rows that `--rows` names, by default all that need no name, and the number of rounds.

    Raises UsageError.
    """
    if not rounds.isdecimal() or not int(rounds):
        raise UsageError(f"--rounds {rounds}: must be a whole number from 1")
    names = [name.strip() for name in rows.split(",")] if rows else []
    for name in names:
        if name not in ROWS:
            raise UsageError(f"--rows {name}: no such row{suggest(name, [*ROWS])}")
    chosen = [row for row in ROWS.values() if row.name in names or not (names or row.named)]
    return chosen, int(rounds)


def prepare(scripts: Sequence[Path], root: Path, folder: Path, seeds: int = 0) -> None:
    """Make `folder` a project like `root` with the lessons of a folder, and notebooks/ of `scripts`
    among them for competitors.

    There is one notebook of each script for each seed from 1 to `seeds`, or one with its defaults,
    of which seed 0 is one.
    """
    lessons, notebooks, source = folder / "lessons", folder / "notebooks", scripts[0].parent
    shutil.copytree(source, lessons, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(lessons, notebooks, ignore=shutil.ignore_patterns("expected", "0*.py"))
    for name in ("tasks.py", "pyproject.toml"):
        shutil.copy(root / name, folder)
    (notebooks / "out").mkdir()
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(SVG_FIGURES)
    for lesson, seed in product(map(reader.read, scripts), range(1, seeds + 1) or [None]):
        path = notebooks / f"{lesson.name}-{seed or 0:03}.ipynb"
        nbformat.write(notebook(lesson.notebook, seed), path)


def notebook(lesson: NotebookNode, seed: int | None) -> NotebookNode:
    """A lesson's notebook with this seed; its cells catch the errors that would stop Papermill."""
    made: NotebookNode = nbformat.from_dict(lesson)
    for cell in made.cells:
        if declared := cell.metadata.get("raises"):
            body = cell.source.replace("\n", "\n    ")
            cell.source = f"try:\n    {body}\nexcept {declared} as error:\n    print(error)"
        if seed is not None and "parameters" in cell.metadata.get("tags", []):
            cell.source += f"\nseed = {seed}"
    return made


def measure(row: Row, folder: Path, rounds: int) -> Result:
    """The result of a row. Raises CourseError if its reference fails."""
    result, expected = Result(row), dict[str, str]()
    order = [contender for contender in row.contenders if not contender.missing]
    for turn in range(1, rounds + 1):
        result.rounds.append({})
        for contender in [each for each in order if each.name not in result.faults]:
            print(f"{row.name}: round {turn} of {rounds}: {contender.name}", flush=True)
            try:
                result.rounds[-1][contender.name] = execute(contender, row, folder, expected)
            except CourseError as error:
                if contender == row.contenders[0]:
                    raise CourseError(f"{row.name}: {contender.name}: {error}") from None
                result.faults[contender.name] = str(error)
        order.append(order.pop(0))  # the next one is first in the next round
    return result


def execute(contender: Contender, row: Row, source: Path, expected: dict[str, str]) -> Sample:
    """Run a contender once. The values of the first contender are expected of all later ones.

    Raises CourseError if one of its commands fails, if it is late, or if it shows another value.
    """
    names = sorted(path.stem for path in source.glob("notebooks/*.ipynb"))[: contender.first]
    folder = source if row.before else source.with_name("copy")
    if not row.before:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
    variables = environment(row, contender, folder)
    for script in filter(None, (row.before, contender.script)):
        sample = stopwatch.measure(script, folder, variables, row.deadline_s)
    figures = folder / "figures.json"
    more = json.loads(figures.read_text()) if figures.exists() else {}
    shown = shown_values(contender.results, names, folder)
    expected |= {} if expected else shown
    compare(shown, expected, names)
    return replace(sample, run_s=sample.wall_s / len(names), **more)


def environment(row: Row, contender: Contender, folder: Path) -> dict[str, str]:
    """The environment of a contender: without GPUs and the user's settings of Jupyter.

    It has as many threads as the pipeline gives its kernels.
    """
    threads = dict.fromkeys(THREAD_VARIABLES, str(max(1, (os.cpu_count() or 1) // JOBS)))
    threads["OMP_WAIT_POLICY"] = "PASSIVE"
    variables = {name: value for name, value in os.environ.items() if name not in threads}
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        variables[name] = str(folder / "ipython")
    seeds = ",".join(map(str, range(1, (contender.first or row.seeds) + 1)))
    variables |= {"CUDA_VISIBLE_DEVICES": "", "PYTEST_ADDOPTS": ""}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables["CONTENDERS"] = str(Path(__file__).with_name("contenders.py"))
    chosen = f"--lessons {row.lessons} " if row.lessons else ""
    variables["OPTIONS"] = chosen + (f"-p seed={seeds}" if seeds else "")
    return variables | threads


def shown_values(results: str, names: Sequence[str], folder: Path) -> dict[str, str]:
    """The values of the checks in a contender's executed notebooks, by `notebook check`.

    Without spaces and line breaks, which differ, and with classes as a notebook shows them.
    """
    paths = [folder / results.format(name) for name in names if results]
    if results == "build/report.json":
        paths = [Path(run["attempt"], NOTEBOOK) for run in json.loads(paths[0].read_text())["runs"]]
    shown = {}
    for name, path in zip(names, paths, strict=bool(results)):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", ()) if "check" in cell["metadata"] else ():
                if output["output_type"] == "execute_result":
                    text = re.sub(r"\s", "", "".join(output["data"]["text/plain"]))
                    shown[f"{name} {cell['metadata']['check']}"] = CLASS.sub(r"\1", text)
    return shown


def compare(shown: dict[str, str], expected: dict[str, str], names: Sequence[str]) -> None:
    """Raise CourseError if a check of these notebooks shows another value than expected."""
    for check in dict.fromkeys([*expected, *shown]):
        value, wanted = (values.get(check, "nothing") for values in (shown, expected))
        if value != wanted and check.split()[0] in names:
            raise CourseError(f"differs at {check}: shows {value:.60}, the reference {wanted:.60}")
