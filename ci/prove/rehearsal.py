"""Tries the mutants of one lesson, quickly: `python -m ci.prove.rehearsal`.

The lesson is executed cell by cell in this process, in IPython's shell, as its kernel would (but
not its figures, of which no check tells anything). Before a cell that has a mutant, the process
forks: the child goes on with the mistake in that cell, with all that was imported and computed
before. It ends at the first check that differs.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from nbformat.v4 import new_output
from traitlets.config import Config

from ci.execute.events import End, Execution
from ci.judge import verdicts
from ci.judge.outcome import Outcome
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.lesson.oracle import Oracle
from ci.lesson.parameters import Value
from ci.lesson.value import MIME, encode
from ci.plan.planner import Run
from ci.prove.forks import Pool, Verdict
from ci.prove.mutants import Mutant
from ci.worker.import_path import add_after_standard_library

LEAST_S, MOST = 10.0, 3  # a mutant hangs after 10 s and 3 times what the cold lesson takes
ORACLES_S = 10.0  # for the oracles of a lesson, which take a fraction of a second


class Rehearsal:
    """A lesson that is executed in this process, cell by cell."""

    def __init__(self, lesson: Lesson, parameters: Mapping[str, Value]) -> None:
        self.lesson, self.parameters = lesson, {**lesson.defaults, **parameters}
        self.at, self.fault = 0, ""
        settings = Config(HistoryManager={"enabled": False})  # its thread would not survive a fork
        module = ModuleType("__main__")
        self._shell = InteractiveShell(user_module=module, config=settings)
        sys.modules["__main__"] = module

    @property
    def cells(self) -> list[NotebookNode]:
        """The cells of the lesson: those before `at` have been executed."""
        return list(self.lesson.notebook.cells)

    def step(self) -> None:
        """Execute the next cell. `fault` says what it raised, unless it is to raise."""
        cell = self.cells[self.at]
        if cell.cell_type == "code" and cell.source.strip():
            cell.execution_count, cell.outputs = self.at + 1, []
            if "figure" not in cell.metadata.get("tags", []):
                self._execute(cell)
        self.at += 1

    def _execute(self, cell: NotebookNode) -> None:
        result = self._shell.run_cell(cell.source)
        if error := result.error_before_exec or result.error_in_exec:
            name = type(error).__name__
            cell.outputs = [new_output("error", ename=name, evalue=str(error), traceback=[])]
            if cell.metadata.get("raises") != name:
                self.fault = f"{name}: {error}".splitlines()[0]
        elif result.result is not None:
            data = {MIME: encode(result.result)}
            cell.outputs = [new_output("execute_result", data, execution_count=self.at + 1)]
        if "parameters" in cell.metadata.get("tags", []):
            self._shell.user_ns.update(self.parameters)

    def go_on(self, mutated: Lesson, parameters: Mapping[str, Value]) -> None:
        """Take what is still to be executed from another reading of the lesson."""
        self.parameters = {**self.parameters, **parameters}
        cells = mutated.notebook.cells
        cells[: self.at] = self.cells[: self.at]
        self.lesson = mutated

    def outcome(self, oracles: Mapping[str, Oracle]) -> Outcome:
        """What the pipeline makes of it, once each cell was executed."""
        run = Run(self.lesson, self.parameters)
        return verdicts.judge(Execution(run, Path(), End.COMPLETED), oracles)

    def differs(self, name: str, oracles: Mapping[str, Oracle]) -> bool:
        """Whether a check is not green, by what its cell shows by now."""
        found = [c for c in self.lesson.checks if c.kind == "given" or c.name == name]
        lesson = replace(self.lesson, checks=tuple(found))
        results = verdicts.judge_checks(lesson, oracles, self.parameters, lesson.notebook)
        return any(not result.green for result in results if result.check.name == name)


def try_lesson(rehearsal: Rehearsal, oracles: Mapping[str, Oracle], wanted: str = "") -> Verdict:
    """Execute the rest of a lesson, to the first check that differs, or to the `wanted` one."""
    checks = {found.cell: found.name for found in rehearsal.lesson.checks}
    while rehearsal.at < len(rehearsal.cells):
        name = checks.get(rehearsal.cells[rehearsal.at].id, "")
        rehearsal.step()
        if rehearsal.fault:
            return {"status": "error", "by": rehearsal.fault}
        if name and name == (wanted or name) and rehearsal.differs(name, oracles):
            return {"status": "differs", "by": name}
        if name and name == wanted:
            return {"status": "survived", "by": ""}
    outcome = rehearsal.outcome(oracles)
    return {"status": "survived" if outcome.green else "error", "by": outcome.reason}


def try_oracles(lesson: Lesson, rehearsal: Rehearsal) -> Verdict:
    """Judge what an executed lesson has shown by the oracles that stand beside `lesson`."""
    notebook = rehearsal.lesson.notebook
    results = verdicts.judge_checks(lesson, oracle.load(lesson), rehearsal.parameters, notebook)
    bad = [result.check.name for result in results if not result.green]
    return {"status": "differs", "by": bad[0]} if bad else {"status": "survived", "by": ""}


def serve(request: Mapping[str, Any], send: Callable[..., None]) -> None:
    """Try the mutants of one lesson, in the copy of the course that the request names."""
    script = Path(request["script"])
    mutants = dict(enumerate(Mutant(**facts) for facts in request["mutants"]))
    _import_from(script.parent)
    oracles = oracle.load(reader.read(script))
    began = time.monotonic()
    # A first time in whole: it imports what the children need, and starts what they share.
    whole = Rehearsal(reader.read(script), request["parameters"])
    with _silence():
        verdict = try_lesson(whole, oracles)
    if verdict["status"] != "survived":
        send(fault=f"{script.stem} is not verified as it is: {verdict['by']}")
        return
    deadline_s = LEAST_S + MOST * (time.monotonic() - began)
    _forget_modules(script.parent)
    pool = Pool(request["jobs"], send)
    rehearsal = Rehearsal(reader.read(script), request["parameters"])
    while rehearsal.at < len(rehearsal.cells):
        for number, mutant in mutants.items():
            if _first_cell(mutant, rehearsal) == rehearsal.at:
                pool.start(number, deadline_s, partial(_with, mutant, script, rehearsal, oracles))
        pool.finish()
        rehearsal.step()
    for number, mutant in mutants.items():
        if mutant.file.startswith("expected/"):
            pool.start(number, ORACLES_S, partial(_with, mutant, script, whole))
    pool.finish()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Say nothing, nor let what is started here: the ranks of mutants have much to complain."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)


def _first_cell(mutant: Mutant, rehearsal: Rehearsal) -> int | None:
    """The first cell that a mutant changes; None for an oracle's, which changes none."""
    if mutant.file.startswith("expected/"):
        return None
    if mutant.parameters:
        return 0
    if mutant.file != rehearsal.lesson.path.name:
        return _first_use(Path(mutant.file).stem, rehearsal.cells)
    before = [i for i, cell in enumerate(rehearsal.cells) if cell.metadata.line <= mutant.line]
    return max(before, default=0)


def _first_use(module: str, cells: Sequence[NotebookNode]) -> int:
    """The first cell that names a program of this module: ranks import it anew. All cells come
    after, where the lesson has names of the module itself."""
    sources = [cell.source if cell.cell_type == "code" else "" for cell in cells]
    if any(re.search(rf"from \S*\b{module} import", source) for source in sources):
        return 0
    named = (i for i, source in enumerate(sources) if re.search(rf"\b{module}\.\w", source))
    return next(named, 0)


def _with(
    mutant: Mutant,
    script: Path,
    rehearsal: Rehearsal,
    oracles: Mapping[str, Oracle] | None = None,
) -> Verdict:
    """Go on in a copy of the course that has the mistake; without `oracles`, judge by its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "course"
        shutil.copytree(script.parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
        mutated = copy / script.relative_to(script.parents[1])
        path = mutated.parent / mutant.file
        text = path.read_text(encoding="utf-8")
        text = text[: mutant.start] + mutant.replacement + text[mutant.end :]
        path.write_text(text, encoding="utf-8")
        lesson = reader.read(mutated)
        if oracles is None:
            return try_oracles(lesson, rehearsal)
        _import_from(mutated.parent, instead_of=script.parent)
        rehearsal.go_on(lesson, mutant.parameters)
        return try_lesson(rehearsal, oracles, mutant.check)


def _import_from(folder: Path, instead_of: Path | None = None) -> None:
    """Be in the lessons' folder, and import from there what is not in the standard library."""
    os.chdir(folder)
    if instead_of:
        sys.path.remove(str(instead_of))
    add_after_standard_library(str(folder))


def _forget_modules(folder: Path) -> None:
    """Let what was imported from the lessons' folder be imported anew."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
            del sys.modules[name]


def main() -> None:
    """Answer the one request on standard input."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def send(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    serve(json.loads(sys.stdin.readline()), send)


if __name__ == "__main__":
    # Started as __main__, which is the lesson's name for itself: take the importable one.
    from ci.prove.rehearsal import main as start

    start()
