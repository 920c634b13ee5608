"""Judging executed notebooks."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from ci.execute.events import End, Execution
from ci.judge import faulty_cells, verdicts
from ci.judge.outcome import Outcome, Status, exit_status, skipped_outcome, unchanged_outcome
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from ci.lesson.value import MIME, encode
from ci.plan.gpus import Gpu, Request
from ci.plan.planner import Run
from tests.conftest import GRADIENT, HEADER, ORACLE, Read

RAISES = '# %% check="boom" raises="RuntimeError"\nraise RuntimeError\n'
GIVEN = '# %% given="a"\nnp.ones(2)\n# %% check="double"\n2 * np.ones(2)\n'
GIVEN_ORACLE = '''\
import numpy as np
from ci.lesson.expect import expect

@expect(dtype="float64")
def a():
    """A draw of torch's own generator."""
    return np.zeros(2)

@expect(dtype="float64")
def double(a):
    """2 a."""
    return 2 * a
'''


def executed(lesson: Lesson, **shown: Any) -> NotebookNode:
    """The notebook of `lesson`, in which the named checks showed values or raised errors."""
    notebook = copy.deepcopy(lesson.notebook)
    cells = {cell.id: cell for cell in notebook.cells}
    for check in lesson.checks:
        if check.name in shown:
            cells[check.cell].execution_count = 1
            cells[check.cell].outputs = [_output(shown[check.name])]
    return notebook


def completed(lesson: Lesson, **shown: Any) -> NotebookNode:
    """The same, in which the other cells also ran, without output."""
    notebook = executed(lesson, **shown)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.execution_count is None:
            cell.execution_count, cell.outputs = 1, []
    return notebook


def _output(value: Any) -> NotebookNode:
    if isinstance(value, Exception):
        return new_output("error", ename=type(value).__name__, evalue="", traceback=[])
    return new_output("execute_result", {MIME: encode(value)}, execution_count=1)


def judge_run(run: Run, notebook: NotebookNode) -> Outcome:
    """The outcome of a run that completed with this notebook."""
    path = run.lesson.path.with_suffix(".ipynb")
    path.write_text(json.dumps(notebook))
    execution = Execution(run, path.parent, End.COMPLETED, notebook=path)
    return verdicts.judge(execution, oracle.load(run.lesson))


def judge(lesson: Lesson, notebook: NotebookNode) -> list[tuple[str, str]]:
    """Status and message of each check."""
    oracles = oracle.load(lesson)
    results = verdicts.judge_checks(lesson, oracles, lesson.defaults, notebook)
    return [(result.status, result.message) for result in results]


def test_the_derived_value_is_verified(read: Read) -> None:
    """The oracle gets the parameters of the run."""
    lesson = read(expected=ORACLE)
    assert judge(lesson, executed(lesson, gradient=4.0 * np.arange(4)))[0][0] == "verified"


def test_another_value_differs(read: Read) -> None:
    """The message says where and by how much."""
    lesson = read(expected=ORACLE)
    status, message = judge(lesson, executed(lesson, gradient=6.0 * np.arange(4)))[0]
    assert status == "differs"
    assert "largest difference 6 at [3]: shown 18.0, expected 12.0" in message


def test_a_cell_that_never_ran_is_missing(read: Read) -> None:
    """Every check that the lesson declares must report."""
    lesson = read(expected=ORACLE)
    assert judge(lesson, executed(lesson)) == [("missing", "its cell never ran")]


def test_displayed_data_is_not_a_shown_value(read: Read) -> None:
    """Only the message of the display hook counts, because `display()` can show anything."""
    lesson = read(expected=ORACLE)
    notebook = executed(lesson, gradient=4.0 * np.arange(4))
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.output_type = "display_data"
    assert judge(lesson, notebook) == [("missing", "its cell shows no values")]


def test_a_cell_with_two_values_is_missing(read: Read) -> None:
    """A check reads exactly one value."""
    lesson = read(expected=ORACLE)
    notebook = executed(lesson, gradient=4.0 * np.arange(4))
    notebook.cells[-1].outputs *= 2
    assert judge(lesson, notebook) == [("missing", "its cell shows 2 values")]


def test_the_declared_error_is_verified(read: Read) -> None:
    """A cell with `raises=` must raise exactly that type."""
    lesson = read(RAISES)
    assert judge(lesson, executed(lesson, boom=RuntimeError()))[0][0] == "verified"


@pytest.mark.parametrize("shown", [ValueError(), NotImplementedError(), 1])
def test_another_error_or_none_differs(read: Read, shown: Any) -> None:
    """Another type, a subclass, and no error are faults."""
    lesson = read(RAISES)
    assert judge(lesson, executed(lesson, boom=shown))[0][0] == "differs"


def test_a_given_has_its_own_status(read: Read) -> None:
    """Only its dtype, shape and finiteness are compared; values derived from it are verified."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    shown = {"a": np.array([1.0, 3.0]), "double": np.array([2.0, 6.0])}
    statuses = [status for status, _ in judge(lesson, executed(lesson, **shown))]
    assert statuses == ["given", "verified"]


def test_a_given_that_is_not_finite_differs(read: Read) -> None:
    """A NaN in a given would make all values derived from it meaningless."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    results = judge(lesson, executed(lesson, a=np.array([1.0, np.nan])))
    assert results[0] == ("differs", "not finite")


def test_an_oracle_that_returns_its_given_is_invalid(read: Read) -> None:
    """Such a check repeats the given, so it needs a reason."""
    echo = GIVEN_ORACLE.replace("return 2 * a", "return a.copy()")
    lesson = read(GIVEN, expected=echo)
    notebook = executed(lesson, a=np.ones(2), double=np.ones(2))
    status, message = judge(lesson, notebook)[1]
    assert (status, "returns the given 'a' unchanged" in message) == ("invalid", True)
    reason = 'dtype="float64", why="a round trip"'
    with_reason = read(GIVEN, expected=echo.replace('dtype="float64"', reason))
    assert judge(with_reason, notebook)[1][0] == "verified"


def test_a_given_that_contains_none_is_no_traceback(read: Read) -> None:
    """No oracle can return None, so neither the given nor a check repeats it."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE.replace("2 * a", "2 * np.ones(a[1])"))
    statuses = judge(lesson, executed(lesson, a=[None, 2], double=2 * np.ones(2)))
    assert [status for status, _ in statuses] == ["differs", "verified"]


def test_a_check_without_its_given_is_missing(read: Read) -> None:
    """Without the given, its expected value cannot be derived."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    results = judge(lesson, executed(lesson, double=np.array([2.0, 6.0])))
    assert results[1] == ("missing", "the given 'a' was not shown")


def test_an_oracle_that_raises_is_invalid(read: Read) -> None:
    """The message names the error."""
    lesson = read(expected=ORACLE.replace("np.arange(size", "np.arange(size / 0"))
    status, message = judge(lesson, executed(lesson, gradient=np.ones(4)))[0]
    assert (status, "ZeroDivisionError" in message) == ("invalid", True)


def _outcome(lesson: Lesson, status: str) -> Outcome:
    if status == "machine":
        return Outcome(Run(lesson, {}), Status.FAILED, machine_fault=True)
    if status == "needs":
        return skipped_outcome(Run(lesson, {}, gpus_needed=2))
    return Outcome(Run(lesson, {}), Status(status))


@pytest.mark.parametrize(
    ("statuses", "gpus", "expected"),
    [
        (["verified"], "auto", 0),
        (["verified", "differs"], "auto", 1),
        (["failed"], "auto", 1),
        (["timed out"], "auto", 1),
        (["unchecked"], "auto", 1),
        (["verified", "needs"], "auto", 0),
        (["verified", "needs"], "none", 0),
        (["verified", "needs"], "all", 3),
        (["verified", "needs"], "2", 3),
        (["differs", "needs"], "all", 1),
        (["verified", "machine"], "auto", 3),
        (["differs", "machine"], "auto", 1),
        (["verified", "submitted"], "auto", 4),
        (["differs", "submitted"], "auto", 1),
        (["machine", "submitted"], "auto", 3),
    ],
)
def test_the_exit_status_says_who_is_at_fault(
    read: Read, statuses: list[str], gpus: str, expected: int
) -> None:
    """0: green, 1: the course, 3: the machine, 4: not done. Missing GPUs count if required."""
    lesson = read("")
    outcomes = [_outcome(lesson, status) for status in statuses]
    assert exit_status(outcomes, gpus_required=Request(gpus).strict) == expected


def test_a_lesson_can_give_a_reason_for_having_no_checks(read: Read) -> None:
    """`checks: {none: reason}` makes an unchecked lesson green."""
    header = HEADER.replace("    gpus:", "    checks: {none: prose only}\n#     gpus:")
    assert _outcome(read("", header=header), "unchecked").green
    assert not _outcome(read(GRADIENT), "unchecked").green


def test_givens_alone_verify_nothing(read: Read) -> None:
    """A lesson whose only checks are givens is unchecked."""
    lesson = read(GIVEN.partition("# %% check")[0], expected=GIVEN_ORACLE.rpartition("@expect")[0])
    outcome = judge_run(Run(lesson, lesson.defaults), completed(lesson, a=np.ones(2)))
    assert outcome.status == "unchecked"


RIGHT = 4.0 * np.arange(4)


@pytest.mark.parametrize("fault", ["skipped", "raised"])
def test_a_cell_that_did_not_run_or_raised_fails_the_run(read: Read, fault: str) -> None:
    """Every code cell must run, and only a cell with raises= may raise."""
    lesson = read(GRADIENT + "# %%\n1;\n", expected=ORACLE)
    run, notebook = Run(lesson, lesson.defaults), completed(lesson, gradient=RIGHT)
    assert judge_run(run, notebook).status == "verified"
    notebook.cells[-1].execution_count = None if fault == "skipped" else 1
    notebook.cells[-1].outputs = [_output(ValueError())] if fault == "raised" else []
    outcome = judge_run(run, notebook)
    assert (outcome.status, outcome.cell) == ("failed", notebook.cells[-1].id)


def test_a_value_without_a_check_makes_a_lesson_unchecked(read: Read) -> None:
    """Students would read it as a result, but nothing has compared it."""
    lesson = read(GRADIENT + "# %%\n1 + 1\n", expected=ORACLE)
    notebook = completed(lesson, gradient=RIGHT)
    notebook.cells[-1].outputs = [_output(2)]
    outcome = judge_run(Run(lesson, lesson.defaults), notebook)
    assert (outcome.status, outcome.cell) == ("unchecked", notebook.cells[-1].id)


def test_a_leased_gpu_must_be_used(read: Read) -> None:
    """Some check must show a tensor on each leased GPU."""
    lesson = read(expected=ORACLE)
    run = Run(lesson, lesson.defaults, gpus=(Gpu("0", "GPU-0", "H100"),))
    outcome = judge_run(run, completed(lesson, gradient=RIGHT))
    assert outcome.status == "differs"
    assert outcome.reason == "leased cuda:0, but no check shows a tensor on it"


def test_outputs_that_nobody_compared_are_counted(read: Read) -> None:
    """The count is part of the outcome, and of the outcome of a run that relies on it."""
    lesson = read(GRADIENT + "# %%\nprint(1)\n", expected=ORACLE)
    notebook = completed(lesson, gradient=RIGHT)
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text="1\n")]
    run = Run(lesson, lesson.defaults)
    outcome = judge_run(run, notebook)
    again = unchanged_outcome(run, lesson.path.parent, outcome.to_json())
    assert (outcome.status, outcome.not_compared, again.not_compared) == ("verified", 1, 1)


@pytest.mark.parametrize("data", [{"text/plain": "<Figure>"}, {"image/svg+xml": "<svg/>"}])
def test_a_figure_cell_draws_a_figure(read: Read, data: dict[str, str]) -> None:
    """Its caption would stand without one."""
    lesson = read(GRADIENT + '# %% tags=["figure"]\nx = 1\n', expected=ORACLE)
    notebook = completed(lesson, gradient=RIGHT)
    notebook.cells[-1].outputs = [new_output("display_data", data)]
    outcome = judge_run(Run(lesson, lesson.defaults), notebook)
    fault = ("failed", notebook.cells[-1].id)
    assert (outcome.status, outcome.cell) == (fault if "text/plain" in data else ("verified", ""))


def test_a_figure_cell_that_only_defines_draws_nothing() -> None:
    """Functions of the next figure may have a cell of their own; other code must draw."""
    assert faulty_cells._only_defines("def draw(panel):\n    panel.plot([1])")
    assert not faulty_cells._only_defines("x = 1")
    assert not faulty_cells._only_defines("%matplotlib inline")
