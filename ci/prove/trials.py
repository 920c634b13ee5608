"""Tries the mutants of one lesson: `python -m ci.prove.trials`.

The lesson is executed cell by cell in this process, in IPython's shell, mostly without its figures,
which no check reads. Before a cell that a mutant changes, the process forks. The fork continues
with the mistake, from everything that was imported and computed before, and ends at the first check
that differs. A mistake in another file is in a copy of the course; one in a cell needs no copy.

`ci.worker` would execute each mutant in a kernel of its own, from the first cell. For one mutant
and with one thread, that took 7.7 times the CPU time in lesson 03 (1.8 s against 0.24 s), 6.5 times
in lesson 02 and 5.6 times in lesson 05; without figures, it took 4.2 times in lesson 03.
"""

import contextlib
import importlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from nbformat.v4 import new_output
from traitlets.config import Config

from ci.errors import CourseError
from ci.execute.events import End, Execution
from ci.judge import verdicts
from ci.judge.outcome import Status
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.lesson.oracle import Oracle
from ci.lesson.parameters import Value
from ci.lesson.value import MIME, encode
from ci.plan.planner import Run
from ci.prove.forks import MutantStatus, Trial, Verdict, run_in_forks
from ci.prove.mutants import Mutant
from ci.worker import processes, ranks
from ci.worker.import_path import add_after_standard_library

# A mutant has this time, and so many times what the lesson has taken; each of its cells likewise.
DEADLINE_S, CELL_DEADLINE_S, DEADLINE_FACTOR = 10.0, 5.0, 3


class LessonShell:
    """Executes a lesson in this process; the cells before `position` have been executed."""

    def __init__(
        self, lesson: Lesson, parameters: Mapping[str, Value], *, figures: bool = False
    ) -> None:
        self.lesson, self.parameters = lesson, {**lesson.defaults, **parameters}
        self.position, self._figures = 0, figures
        self.deadlines_s: list[float] = []  # of the cells of a fork: SIGALRM ends it
        self.taken_s: list[float] = []
        settings = Config(HistoryManager={"enabled": False})  # its thread would not survive a fork
        module = ModuleType("__main__")
        self._shell = InteractiveShell(user_module=module, config=settings)
        sys.modules["__main__"] = module

    @property
    def cells(self) -> list[NotebookNode]:
        """All cells of the lesson."""
        return list(self.lesson.notebook.cells)

    def run_cell(self) -> str:
        """Execute the next cell; return the error that it raised without declaring it, or ""."""
        cell = self.cells[self.position]
        self.position += 1
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not cell.source.strip():
            return ""
        cell.execution_count = self.position
        if "figure" in tags:  # draws nothing here, so nobody may expect a figure of it
            cell.metadata.tags = [tag for tag in tags if tag != "figure"]
            if not self._figures:
                return ""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            result = self._shell.run_cell(cell.source)
        if "parameters" in tags:
            self._shell.user_ns.update(self.parameters)
        cell.outputs = [new_output("stream", text=printed.getvalue())] if printed.getvalue() else []
        if error := result.error_before_exec or result.error_in_exec:
            name = type(error).__name__
            cell.outputs += [new_output("error", ename=name, evalue=str(error), traceback=[])]
            declared = cell.metadata.get("raises") == name
            return "" if declared else f"{name}: {error}".splitlines()[0]
        if result.result is not None:
            data = {MIME: encode(result.result)}
            cell.outputs += [new_output("execute_result", data, execution_count=self.position)]
        return ""

    def finish(self, oracles: Mapping[str, Oracle], wanted: str = "") -> Verdict:
        """Execute the rest, up to the first check that differs, or up to the `wanted` check."""
        checks = {check.cell: check.name for check in self.lesson.checks}
        while self.position < len(self.cells):
            name = checks.get(self.cells[self.position].id, "")
            if error := self._run_in_time():
                return Verdict(MutantStatus.ERROR, error)
            if name and name == (wanted or name):
                if self._differs(name, oracles):
                    return Verdict(MutantStatus.DIFFERS, name)
                if wanted:
                    return Verdict(MutantStatus.SURVIVED)
        run = Run(self.lesson, self.parameters)
        outcome = verdicts.judge(Execution(run, Path(), End.COMPLETED), oracles)
        if outcome.green:
            return Verdict(MutantStatus.SURVIVED)
        differs = outcome.status == Status.DIFFERS
        return Verdict(MutantStatus.DIFFERS if differs else MutantStatus.ERROR, outcome.reason)

    def _run_in_time(self) -> str:
        started = time.monotonic()
        if self.deadlines_s:
            signal.setitimer(signal.ITIMER_REAL, self.deadlines_s[self.position])
        error = self.run_cell()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.taken_s.append(time.monotonic() - started)
        return error

    def _differs(self, name: str, oracles: Mapping[str, Oracle]) -> bool:
        """Whether a check is not green; it may need the givens, which are shown before it."""
        needed = tuple(c for c in self.lesson.checks if c.kind == "given" or c.name == name)
        lesson = replace(self.lesson, checks=needed)
        results = verdicts.judge_checks(lesson, oracles, self.parameters, lesson.notebook)
        return any(not result.green for result in results if result.check.name == name)


def try_in_lesson(
    script: Path,
    parameters: Mapping[str, Value],
    figures: bool,
    mutants: Sequence[Mutant],
    jobs: int,
    report: Callable[[int, Verdict], None],
) -> None:
    """Report the verdict on each mutant of one lesson, with its number.

    Raises CourseError if the lesson is not verified as it is.
    """
    script = _copy_course(script)
    os.chdir(script.parent)
    add_after_standard_library(str(script.parent))
    oracles = oracle.load(reader.read(script))
    ranks.stand_by(_forget_modules)()  # ranks are forked from a fork that has imported torch
    # The first execution verifies the lesson, and imports the packages that the forks need.
    first = LessonShell(reader.read(script), parameters, figures=figures)
    verdict = first.finish(oracles)
    if verdict.status != MutantStatus.SURVIVED:
        raise CourseError(f"{script.stem} is not verified as it is: {verdict.reason}")
    deadline_s = DEADLINE_S + DEADLINE_FACTOR * sum(first.taken_s)
    _forget_modules()
    lesson = reader.read(script)
    shell = LessonShell(lesson, parameters, figures=figures)
    shell.deadlines_s = [CELL_DEADLINE_S + DEADLINE_FACTOR * taken for taken in first.taken_s]
    starts: dict[int, list[int]] = {}  # the mutants by the position of the shell to fork at
    for number, mutant in enumerate(mutants):
        starts.setdefault(_first_cell(mutant, lesson), []).append(number)

    def trials() -> Iterator[tuple[int, Trial]]:
        for position in range(len(shell.cells) + 1):
            for number in starts.get(position, []):
                yield number, partial(_try_mutant, mutants[number], shell, oracles)
            if position < len(shell.cells):
                shell.run_cell()

    for number, verdict in run_in_forks(trials(), jobs=jobs, deadline_s=deadline_s):
        report(number, verdict)


def _copy_course(script: Path) -> Path:
    """A copy of a lesson, in a copy of the course: oracles read a version in pyproject.toml."""
    copy, project = Path(tempfile.mkdtemp()), script.parents[1] / "pyproject.toml"
    if project.exists():
        shutil.copy(project, copy)
    lessons = copy / script.parent.name
    shutil.copytree(script.parent, lessons, ignore=shutil.ignore_patterns("__pycache__"))
    return lessons / script.name


def _forget_modules() -> None:
    """Have ranks import the modules of the course again, with the mistake of their copy."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(tempfile.gettempdir()):
            del sys.modules[name]


def _redirect_packages(before: Path, now: Path) -> None:
    """Import what has not been imported of the course's packages from another copy of them."""
    for module in list(sys.modules.values()):
        file = Path(str(getattr(module, "__file__", None)))
        if file.name == "__init__.py" and file.is_relative_to(before):
            module.__path__ = [str(now / file.parent.relative_to(before))]


def _first_cell(mutant: Mutant, lesson: Lesson) -> int:
    """The first cell that a mutant can change; the end for an expected value."""
    cells = lesson.notebook.cells
    if mutant.is_oracle:
        return len(cells)
    if mutant.parameters:
        return 0
    if mutant.file == lesson.path.name:
        return _changed_cell(mutant, cells)
    module = Path(mutant.file).stem  # ranks import it again, so that it matters where it is used
    use = re.compile(rf"from \S*\b{module} import|\b{module}\.\w")
    uses = (i for i, c in enumerate(cells) if c.cell_type == "code" and use.search(c.source))
    return next(uses, 0)


def _changed_cell(mutant: Mutant, cells: Sequence[NotebookNode]) -> int:
    return max((i for i, c in enumerate(cells) if c.metadata.line <= mutant.line), default=0)


def _try_mutant(mutant: Mutant, shell: LessonShell, oracles: Mapping[str, Oracle]) -> Verdict:
    """In a fork: continue the lesson with the mistake."""
    shell.parameters |= mutant.parameters
    if mutant.file == shell.lesson.path.name:
        cell = shell.cells[_changed_cell(mutant, shell.cells)]
        cell.source = _mutated_source(mutant, cell)
    else:
        _switch_to_copy(mutant, shell)
    if mutant.is_oracle:
        oracles = oracle.load(shell.lesson)
    else:
        _restart_ranks()
    return shell.finish(oracles, mutant.check)


def _mutated_source(mutant: Mutant, cell: NotebookNode) -> str:
    """The text of a cell, which begins at its line of the script, with the mistake."""
    lines = mutant.text.split("\n")[: cell.metadata.line - 1]
    before = sum(len(line) + 1 for line in lines)
    start, end = mutant.change.start - before, mutant.change.end - before
    return str(cell.source[:start] + mutant.change.replacement + cell.source[end:])


def _switch_to_copy(mutant: Mutant, shell: LessonShell) -> None:
    """Continue in a copy of the course that has the mistake in another file than the lesson."""
    folder, script = shell.lesson.path.parent, _copy_course(shell.lesson.path)
    (script.parent / mutant.file).write_text(mutant.mutated_text, encoding="utf-8")
    os.chdir(script.parent)
    sys.path[sys.path.index(str(folder))] = str(script.parent)
    _redirect_packages(folder, script.parent)
    shell.lesson = replace(shell.lesson, path=script)


def _restart_ranks() -> None:
    """Have a lesson that starts ranks start them in this fork, by a server of its own.

    The server of the parent is no child of this process, which could not wait for it.
    """
    if server := sys.modules.get("multiprocessing.forkserver"):
        importlib.reload(server)
        ranks.stand_by(_forget_modules)()


def main() -> None:
    """Answer the request in the file that standard input names, one JSON line per verdict."""
    processes.end_with(os.getppid())
    events, errors = os.fdopen(os.dup(1), "w"), os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # failing ranks print long tracebacks

    def report(number: int | None, verdict: Verdict) -> None:
        events.write(json.dumps([number, verdict.status, verdict.reason]) + "\n")
        events.flush()

    request = pickle.loads(Path(sys.stdin.readline().strip()).read_bytes())
    try:
        try_in_lesson(**request, report=report)
    except CourseError as error:
        report(None, Verdict(MutantStatus.ERROR, str(error)))
    finally:
        os.dup2(errors, 2)  # for the traceback of a fault in the pipeline


if __name__ == "__main__":
    # The lesson becomes __main__: use the module under its importable name.
    from ci.prove.trials import main as main_of_importable

    main_of_importable()
