"""Shown values against expected ones.

What a cell showed is read from the executed notebook, in full precision. What it should show comes
from the oracles in lessons/expected, which compute it without torch. Nothing is green here that was
not compared: what did not report, could not be read or can't be wrong is a fault, by name.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nbformat
from nbformat import NotebookNode

from ci.errors import CourseError
from ci.execute.engine import Event
from ci.judge.compare import Comparison
from ci.lesson.expect import Rule
from ci.lesson.oracle import Oracle
from ci.lesson.parameters import Value
from ci.lesson.reader import Check, Lesson
from ci.lesson.value import Comparable, expected_value, shown_value
from ci.plan.gpus import Request
from ci.plan.planner import Run

Status = Literal["verified", "given", "differs", "missing", "invalid"]


@dataclass(frozen=True)
class Result:
    """What became of one declared check. `margin` is the share of the tolerance that was used."""

    check: Check
    status: Status
    message: str = ""
    shown: str = ""
    expected: str = ""
    derivation: str = ""
    tolerance: str = ""
    margin: float | None = None
    devices: tuple[str, ...] = ()

    @property
    def green(self) -> bool:
        """Whether it was compared and agreed (a given agrees in dtype, shape and finiteness)."""
        return self.status in ("verified", "given")


@dataclass(frozen=True)
class Answer:
    """What the solution of an exercise must show, and how that is compared."""

    expected: Comparable
    rule: Rule


@dataclass(frozen=True)
class Outcome:
    """What became of one run. `at` is the cell of a fault, `attempt` the folder of its files,
    `answers` what the lesson's exercises ask for, by name, `key` what its handouts are made from.

    One that is `unchanged` stands on an earlier run, of that date."""

    run: Run
    status: str
    results: tuple[Result, ...] = ()
    reason: str = ""
    at: str = ""
    seconds: float = 0.0
    date: str = ""
    attempt: Path | None = None
    notebook: NotebookNode | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)
    key: str = ""

    @property
    def green(self) -> bool:
        """Verified, now or before; or without a check, where the lesson's header says why."""
        excused = self.status == "unchecked" and self.run.lesson.unchecked_because
        return self.status in ("verified", "unchanged") or bool(excused)

    @property
    def verdict(self) -> str:
        """The status, and since when it stands if it is not of today."""
        return f"unchanged since {self.date}" if self.status == "unchanged" else self.status

    @property
    def needs_gpus(self) -> bool:
        """Whether it was not run, for lack of GPUs."""
        return self.status.startswith("needs ")


def not_run(run: Run) -> Outcome:
    """The outcome of a run that this machine lacks the GPUs for."""
    needed = f"needs {run.gpus_needed} GPU{'s' if run.gpus_needed > 1 else ''}"
    return Outcome(run, needed, reason=f"{len(run.gpus)} leased")


def outcome(end: Event, oracles: Mapping[str, Oracle]) -> Outcome:
    """Judge an execution that has ended."""
    run, notebook = end.run, end.run.lesson.notebook
    if end.executed:
        notebook = nbformat.read(end.executed, as_version=4)
    results = judge(run.lesson, oracles, run.parameters, notebook)
    status, reason = end.status, end.reason
    at = end.at
    if status == "completed":
        status, reason = _status(run, results)
        if cell := _skipped(notebook):
            status, reason, at = "failed", "a cell did not run, or raised undeclared", cell
        elif status == "verified" and (cell := _uncompared(notebook)):
            status, at = "unchecked", cell
            reason = "a cell shows a value that nothing compares: give it a check, or end it in ;"
    return Outcome(
        run=run,
        status=status,
        results=tuple(results),
        reason=reason,
        at=at,
        seconds=end.seconds,
        date=end.date,
        attempt=end.folder,
        notebook=notebook,
        environment=end.environment,
        answers=answers(run.lesson, oracles, run.parameters),
    )


def _skipped(notebook: NotebookNode) -> str:
    """The first code cell that did not run, or that shows an error which it does not declare."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.strip():
            errors = [output for output in cell.outputs if output.output_type == "error"]
            if cell.execution_count is None or (errors and "raises" not in cell.metadata):
                return str(cell.id)
    return ""


def _uncompared(notebook: NotebookNode) -> str:
    """The first cell whose shown value is neither a check nor a given."""
    for cell in notebook.cells:
        shows = any(out.output_type == "execute_result" for out in cell.get("outputs", []))
        if shows and not cell.metadata.keys() & {"check", "given"}:
            return str(cell.id)
    return ""


def _status(run: Run, results: Sequence[Result]) -> tuple[str, str]:
    if all(result.check.kind == "given" for result in results):
        return "unchecked", run.lesson.unchecked_because or "the lesson declares no check"
    bad = [result for result in results if not result.green]
    if bad:
        return "differs", f"{len(bad)} of {len(results)} checks: {bad[0].check.name}"
    seen = {device for result in results for device in result.devices}
    unseen = [f"cuda:{i}" for i in range(len(run.gpus)) if f"cuda:{i}" not in seen]
    if unseen:
        return "differs", f"leased {unseen[0]}, and no check shows a tensor that lives there"
    return "verified", ""


def status(outcomes: Sequence[Outcome], request: Request) -> int:
    """The exit status of a plan: 0 green, 1 the course is at fault, 3 the machine lacks GPUs."""
    if any(not outcome.green and not outcome.needs_gpus for outcome in outcomes):
        return 1
    return 3 if request.strict and any(outcome.needs_gpus for outcome in outcomes) else 0


def judge(
    lesson: Lesson,
    oracles: Mapping[str, Oracle],
    parameters: Mapping[str, Value],
    notebook: NotebookNode,
) -> list[Result]:
    """The result of each check that `lesson` declares, in its order, from the executed notebook."""
    cells = {cell.id: cell for cell in notebook.cells}
    known: dict[str, Any] = dict(parameters)
    for check in lesson.checks:
        if check.kind == "given":
            with contextlib.suppress(ValueError):  # no value: its own result will say so
                known[check.name] = shown_value(cells[check.cell]).python()
    return [
        _judge_error(check, cells[check.cell])
        if check.kind == "raises"
        else _judge_value(check, cells[check.cell], oracles[check.name], known, parameters)
        for check in lesson.checks
    ]


def answers(
    lesson: Lesson, oracles: Mapping[str, Oracle], parameters: Mapping[str, Value]
) -> dict[str, Answer]:
    """What the exercises of `lesson` ask for; those whose oracle fails are left out."""
    found = {}
    for exercise in lesson.exercises:
        oracle = oracles[exercise.name]
        with contextlib.suppress(CourseError, TypeError):  # the result of its check says so
            value = expected_value(oracle.value(parameters))
            found[exercise.name] = Answer(value, oracle.rule)
    return found


def _judge_error(check: Check, cell: NotebookNode) -> Result:
    names = [out.ename for out in cell.get("outputs", []) if out.output_type == "error"]
    facts: dict[str, Any] = {
        "shown": names[0] if names else "no error",
        "expected": check.raises,
        "derivation": f"The cell must raise {check.raises}.",
    }
    if cell.execution_count is None:
        return Result(check, "missing", "its cell never ran", **{**facts, "shown": ""})
    if names != [check.raises]:
        return Result(check, "differs", f"raised {facts['shown']}", **facts)
    return Result(check, "verified", tolerance="exact", margin=0.0, **facts)


def _judge_value(
    check: Check,
    cell: NotebookNode,
    oracle: Oracle,
    known: Mapping[str, Any],
    parameters: Mapping[str, Value],
) -> Result:
    facts: dict[str, Any] = {"derivation": oracle.derivation}
    try:
        shown = shown_value(cell)
    except ValueError as error:
        return Result(check, "missing", str(error), **facts)
    facts |= {"shown": shown.text(), "devices": tuple(sorted(shown.devices()))}
    if lacking := [name for name in oracle.wants if name not in known]:
        return Result(check, "missing", f"the given '{lacking[0]}' was not shown", **facts)
    try:
        expected = expected_value(oracle.value(known))
    except (CourseError, TypeError) as error:
        return Result(check, "invalid", str(error), **facts)

    comparison = Comparison(oracle.rule, parameters, given=check.kind == "given")
    comparison.compare(shown, expected)
    if check.kind == "given":
        facts["expected"] = "given, not derived"
    else:
        comparison.reject_vacuous(expected)
        facts["expected"] = expected.text()
        facts["tolerance"] = ", ".join(sorted(comparison.tolerances)) or "exact"
        facts["margin"] = comparison.margin
    if comparison.invalid:
        return Result(check, "invalid", comparison.invalid[0], **facts)
    if comparison.faults:
        return Result(check, "differs", "; ".join(comparison.faults[:3]), **facts)
    return Result(check, "given" if check.kind == "given" else "verified", **facts)
