"""Judge an execution: shown values against expected ones.

Shown values are read from the executed notebook in full precision. Expected values come from the
oracles in lessons/expected, which compute them without torch. Only a check that was compared is
green: a value that is missing, that cannot be read or that could not differ is a fault.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ci.errors import CourseError
from ci.execute.events import End, Execution
from ci.judge.compare import Comparison
from ci.judge.faulty_cells import (
    first_figure_not_drawn,
    first_incomplete_cell,
    first_unchecked_cell,
)
from ci.judge.listings import mark_listings
from ci.judge.not_compared import not_compared
from ci.judge.outcome import Answer, CheckStatus, Outcome, Result, Status
from ci.judge.printed import compare_printed, printed_text, shortened
from ci.judge.prose import with_current_prose
from ci.lesson.exercises import BLANKS, Exercise
from ci.lesson.expect import Rule
from ci.lesson.lesson import Check, Lesson
from ci.lesson.node import NotebookNode, read
from ci.lesson.oracle import Oracle
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable, expected_value, shown_value
from ci.plan.planner import Run
from ci.plan.run_cache import Previous

ENDS = {End.FAILED: Status.FAILED, End.TIMED_OUT: Status.TIMED_OUT}


def judge(execution: Execution, oracles: Mapping[str, Oracle]) -> Outcome:
    """The outcome of an execution."""
    run, notebook = execution.run, execution.run.lesson.notebook
    if execution.notebook:
        notebook = with_current_prose(notebook, read(execution.notebook))
        mark_listings(notebook, run.lesson)
    results = judge_checks(run.lesson, oracles, run.parameters, notebook)
    cell, reason = execution.cell, execution.reason
    if execution.end == End.COMPLETED:
        status, reason, cell = _judge_completed(run, results, notebook)
        if status == Status.VERIFIED and (solved := _solved_blank(run, oracles, notebook)):
            status, cell = Status.FAILED, solved.blank.id
            reason = f"the blank of '{solved.name}' shows the expected value: remove its solution"
    else:
        status = ENDS[execution.end]
    return Outcome(
        run=run,
        status=status,
        results=tuple(results),
        reason=reason,
        cell=cell,
        machine_fault=execution.machine_fault,
        seconds=execution.seconds,
        date=execution.date,
        attempt=execution.attempt,
        notebook=notebook,
        environment=execution.environment,
        answers=exercise_answers(run.lesson, oracles, run.parameters),
        not_compared=len(not_compared(notebook)),
    )


def judge_again(previous: Previous, oracles: Mapping[str, Oracle]) -> Outcome:
    """The outcome of an earlier execution: its notebook judged by the current oracles."""
    outcome = judge(
        Execution(
            previous.run,
            previous.attempt,
            End.COMPLETED,
            notebook=previous.notebook,
            seconds=previous.facts["seconds"],
            date=previous.facts["date"],
            environment=previous.facts["environment"],
        ),
        oracles,
    )
    if outcome.status != Status.VERIFIED:
        return outcome
    if previous.verdict_is_current:
        return replace(outcome, status=Status.UNCHANGED, key=previous.key)
    return replace(outcome, reason=f"executed {outcome.date}, judged again")


def _judge_completed(
    run: Run, results: Sequence[Result], notebook: NotebookNode
) -> tuple[Status, str, str]:
    """Status, reason and cell at fault of an execution that reached its end."""
    if cell := first_incomplete_cell(notebook):
        return Status.FAILED, "a cell did not run, or raised an error without raises=", cell
    if cell := first_figure_not_drawn(notebook):
        reason = "a cell tagged figure draws no figure: call plt.show(), or remove the tag"
        return Status.FAILED, reason, cell
    status, reason = _judge_results(run, results)
    if status == Status.VERIFIED and (cell := first_unchecked_cell(notebook)):
        reason = "a cell shows a value without a check: add check=, or end the cell in ;"
        return Status.UNCHECKED, reason, cell
    return status, reason, ""


def _judge_results(run: Run, results: Sequence[Result]) -> tuple[Status, str]:
    if all(result.check.kind == "given" for result in results):
        return Status.UNCHECKED, run.lesson.unchecked_because or "the lesson declares no check"
    bad = [result for result in results if not result.green]
    if bad:
        reason = f"{len(bad)} of {len(results)} checks failed, the first is {bad[0].check.name}"
        return Status.DIFFERS, reason
    used = {device for result in results for device in result.devices}
    unused = [f"cuda:{i}" for i in range(len(run.gpus)) if f"cuda:{i}" not in used]
    if unused:
        return Status.DIFFERS, f"leased {unused[0]}, but no check shows a tensor on it"
    return Status.VERIFIED, ""


def judge_checks(
    lesson: Lesson,
    oracles: Mapping[str, Oracle],
    parameters: Mapping[str, Value],
    notebook: NotebookNode,
) -> list[Result]:
    """The result of each check that `lesson` declares, in order, from its executed `notebook`."""
    cells = {cell.id: cell for cell in notebook.cells}
    known: dict[str, Any] = dict(parameters)
    for check in lesson.checks:
        if check.kind == "given":
            with contextlib.suppress(ValueError):  # the result of the given reports it
                known[check.name] = shown_value(cells[check.cell]).python()
    return [
        _judge_error(check, cells[check.cell])
        if check.kind == "raises"
        else _judge_value(check, cells[check.cell], oracles[check.name], known, parameters)
        for check in lesson.checks
    ]


def _solved_blank(
    run: Run, oracles: Mapping[str, Oracle], notebook: NotebookNode
) -> Exercise | None:
    """The first exercise whose blank passes its check as students get it."""
    checks = {check.name: check for check in run.lesson.checks}
    for exercise in run.lesson.exercises:
        shown = notebook.metadata.get(BLANKS, {}).get(exercise.name, [])
        blank = NotebookNode({**exercise.blank, "execution_count": 1, "outputs": shown})
        check, oracle = checks[exercise.name], oracles[exercise.name]
        if _judge_value(check, blank, oracle, run.parameters, run.parameters).green:
            return exercise
    return None


def exercise_answers(
    lesson: Lesson, oracles: Mapping[str, Oracle], parameters: Mapping[str, Value]
) -> dict[str, Answer]:
    """The expected values of the exercises of `lesson`, without those whose oracle fails."""
    answers = {}
    for exercise in lesson.exercises:
        oracle = oracles[exercise.name]
        with contextlib.suppress(CourseError):  # the result of its check reports it
            answers[exercise.name] = Answer(oracle.value(parameters), oracle.rule)
    return answers


def _judge_error(check: Check, cell: NotebookNode) -> Result:
    names = [out.ename for out in cell.get("outputs", []) if out.output_type == "error"]
    facts: dict[str, Any] = {
        "shown": names[0] if names else "no error",
        "expected": check.raises,
        "derivation": f"The cell must raise {check.raises}.",
    }
    if cell.execution_count is None:
        return Result(check, CheckStatus.MISSING, "its cell never ran", **{**facts, "shown": ""})
    if names != [check.raises]:
        return Result(check, CheckStatus.DIFFERS, f"raised {facts['shown']}", **facts)
    return Result(check, CheckStatus.VERIFIED, tolerance="exact", margin=0.0, **facts)


def _judge_value(
    check: Check,
    cell: NotebookNode,
    oracle: Oracle,
    known: Mapping[str, Any],
    parameters: Mapping[str, Value],
) -> Result:
    facts: dict[str, Any] = {"derivation": oracle.derivation}
    try:
        shown = printed_text(cell) if check.kind == "stdout" else shown_value(cell)
    except ValueError as error:
        return Result(check, CheckStatus.MISSING, str(error), **facts)
    facts |= {"shown": _short(check, shown), "devices": tuple(sorted(shown.devices()))}
    if missing := [name for name in oracle.argument_names if name not in known]:
        return Result(
            check, CheckStatus.MISSING, f"the given '{missing[0]}' was not shown", **facts
        )
    try:
        expected = oracle.value(known)
    except CourseError as error:
        return Result(check, CheckStatus.INVALID, str(error), **facts)
    givens = {name: known[name] for name in oracle.argument_names if name not in parameters}
    if returned := _returned_given(oracle, expected, givens):
        why = f"its oracle returns the given '{returned}' unchanged: derive the value, or say why=…"
        return Result(check, CheckStatus.INVALID, why, **facts)
    return _compare(check, oracle.rule, parameters, shown, expected, facts)


def _returned_given(oracle: Oracle, expected: Comparable, givens: Mapping[str, Any]) -> str:
    """The given whose value the oracle returns without a reason; the check would repeat it."""
    if oracle.rule.why:
        return ""
    for name, value in givens.items():
        with contextlib.suppress(TypeError):  # no oracle can return it: it contains None
            if _are_equal(expected, expected_value(value)):
                return name
    return ""


def _are_equal(one: Comparable, other: Comparable) -> bool:
    """Whether two values have the same structure and the same numbers."""
    leaves = list(one.leaves()), list(other.leaves())
    return len(leaves[0]) == len(leaves[1]) and all(
        np.array_equal(a.value, b.value) for a, b in zip(*leaves, strict=True)
    )


def _short(check: Check, value: Comparable) -> str:
    return shortened(value.value) if check.kind == "stdout" else value.text()


def _compare(
    check: Check,
    rule: Rule,
    parameters: Mapping[str, Value],
    shown: Comparable,
    expected: Comparable,
    facts: dict[str, Any],
) -> Result:
    comparison = Comparison(rule, parameters, given=check.kind == "given")
    if check.kind == "stdout":
        compare_printed(comparison, shown, expected)
    else:
        comparison.compare(shown, expected)
    if check.kind == "given":
        facts["expected"] = "given, not derived"
        comparison.reject_empty(shown)
    else:
        comparison.reject_vacuous(expected)
        facts["expected"] = _short(check, expected)
        facts["tolerance"] = ", ".join(sorted(comparison.tolerances)) or "exact"
        facts["margin"] = comparison.margin
    if comparison.invalid:
        return Result(check, CheckStatus.INVALID, comparison.invalid[0], **facts)
    if comparison.faults:
        return Result(check, CheckStatus.DIFFERS, "; ".join(comparison.faults[:3]), **facts)
    status = CheckStatus.GIVEN if check.kind == "given" else CheckStatus.VERIFIED
    return Result(check, status, **facts)
