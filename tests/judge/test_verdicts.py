"""From an executed notebook to the results of all declared checks."""

import copy
from typing import Any

import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from ci.judge import verdicts
from ci.judge.outcome import Outcome, Status, exit_status
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from ci.lesson.value import MIME, encode
from ci.plan import planner
from ci.plan.gpus import Gpu, Request
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
    """`lesson` as if each named check had shown its value, or raised it where it is an error."""
    notebook = copy.deepcopy(lesson.notebook)
    cells = {cell.id: cell for cell in notebook.cells}
    for declared in lesson.checks:
        if declared.name in shown:
            cell, value = cells[declared.cell], shown[declared.name]
            cell.execution_count = 1
            cell.outputs = [_output(value)]
    return notebook


def _output(value: Any) -> NotebookNode:
    if isinstance(value, Exception):
        return new_output("error", ename=type(value).__name__, evalue="", traceback=[])
    return new_output("execute_result", {MIME: encode(value)}, execution_count=1)


def judge(lesson: Lesson, notebook: NotebookNode) -> list[tuple[str, str]]:
    """Status and message of each check."""
    oracles = oracle.load(lesson)
    results = verdicts.judge_checks(lesson, oracles, lesson.defaults, notebook)
    return [(result.status, result.message) for result in results]


def test_a_value_as_derived_is_verified(read: Read) -> None:
    """The oracle is called with the values of the run."""
    lesson = read(expected=ORACLE)
    assert judge(lesson, executed(lesson, gradient=4.0 * np.arange(4)))[0][0] == "verified"


def test_another_value_differs(read: Read) -> None:
    """The message says by how much and where."""
    lesson = read(expected=ORACLE)
    status, message = judge(lesson, executed(lesson, gradient=6.0 * np.arange(4)))[0]
    assert status == "differs"
    assert "largest difference 6 at [3]: shown 18.0, expected 12.0" in message


def test_a_cell_that_never_ran_is_missing(read: Read) -> None:
    """A check is declared by the lesson, not by what happened to report."""
    lesson = read(expected=ORACLE)
    assert judge(lesson, executed(lesson)) == [("missing", "its cell never ran")]


def test_displayed_data_is_not_a_shown_value(read: Read) -> None:
    """Only the display hook's own message counts: display() could say anything."""
    lesson = read(expected=ORACLE)
    notebook = executed(lesson, gradient=4.0 * np.arange(4))
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.output_type = "display_data"
    assert judge(lesson, notebook) == [("missing", "its cell shows no values")]


def test_a_second_value_is_one_too_many(read: Read) -> None:
    """A check reads exactly one value."""
    lesson = read(expected=ORACLE)
    notebook = executed(lesson, gradient=4.0 * np.arange(4))
    notebook.cells[-1].outputs *= 2
    assert judge(lesson, notebook) == [("missing", "its cell shows 2 values")]


def test_the_error_that_was_declared_is_verified(read: Read) -> None:
    """A cell with raises= must raise just that type."""
    lesson = read(RAISES)
    assert judge(lesson, executed(lesson, boom=RuntimeError()))[0][0] == "verified"


@pytest.mark.parametrize("shown", [ValueError(), NotImplementedError(), 1])
def test_another_error_or_none_differs(read: Read, shown: Any) -> None:
    """Another type, a subclass too, and no error at all are faults."""
    lesson = read(RAISES)
    assert judge(lesson, executed(lesson, boom=shown))[0][0] == "differs"


def test_a_given_is_not_called_verified(read: Read) -> None:
    """Its dtype, shape and finiteness are compared; what builds on it is verified."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    shown = {"a": np.array([1.0, 3.0]), "double": np.array([2.0, 6.0])}
    statuses = [status for status, _ in judge(lesson, executed(lesson, **shown))]
    assert statuses == ["given", "verified"]


def test_a_given_that_is_not_finite_differs(read: Read) -> None:
    """A NaN in a given would make all that builds on it meaningless."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    results = judge(lesson, executed(lesson, a=np.array([1.0, np.nan])))
    assert results[0] == ("differs", "not finite")


def test_a_check_without_its_given_is_missing(read: Read) -> None:
    """What can't be derived is not green."""
    lesson = read(GIVEN, expected=GIVEN_ORACLE)
    results = judge(lesson, executed(lesson, double=np.array([2.0, 6.0])))
    assert results[1] == ("missing", "the given 'a' was not shown")


def test_an_oracle_that_raises_is_invalid(read: Read) -> None:
    """It is the course's fault, and names the error."""
    lesson = read(expected=ORACLE.replace("np.arange(size", "np.arange(size / 0"))
    status, message = judge(lesson, executed(lesson, gradient=np.ones(4)))[0]
    assert (status, "ZeroDivisionError" in message) == ("invalid", True)


def _outcome(lesson: Lesson, status: str) -> Outcome:
    if status == "machine":
        return Outcome(planner.Run(lesson, {}), Status.FAILED, machine_fault=True)
    if status == "needs":
        return verdicts.skipped(planner.Run(lesson, {}, gpus_needed=2))
    return Outcome(planner.Run(lesson, {}), Status(status))


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
    ],
)
def test_the_exit_status_says_who_is_at_fault(
    read: Read, statuses: list[str], gpus: str, expected: int
) -> None:
    """0 green, 1 the course, 3 the machine; lacking GPUs count where they were asked for."""
    lesson = read("")
    outcomes = [_outcome(lesson, status) for status in statuses]
    assert exit_status(outcomes, gpus_required=Request(gpus).strict) == expected


def test_a_lesson_may_say_why_it_has_no_checks(read: Read) -> None:
    """`checks: {none: reason}` makes an unchecked lesson green, and it stays `unchecked`."""
    header = HEADER.replace("    gpus:", "    checks: {none: prose only}\n#     gpus:")
    assert _outcome(read("", header=header), "unchecked").green
    assert not _outcome(read(GRADIENT), "unchecked").green


def test_givens_alone_verify_nothing(read: Read) -> None:
    """A lesson that shows inputs only is unchecked."""
    lesson = read(GIVEN.partition("# %% check")[0], expected=GIVEN_ORACLE.rpartition("@expect")[0])
    run = planner.Run(lesson, lesson.defaults)
    oracles = oracle.load(lesson)
    results = verdicts.judge_checks(
        lesson, oracles, lesson.defaults, executed(lesson, a=np.ones(2))
    )
    assert verdicts._status(run, results)[0] == "unchecked"


@pytest.mark.parametrize("fault", ["skipped", "raised"])
def test_a_cell_that_did_not_do_its_part_is_found(read: Read, fault: str) -> None:
    """Each code cell must have run, and only those that declare it may show an error."""
    notebook = executed(read("# %%\n1\n"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = 1, []
    assert verdicts._skipped(notebook) == ""
    notebook.cells[-1].execution_count = None if fault == "skipped" else 1
    notebook.cells[-1].outputs = [_output(ValueError())] if fault == "raised" else []
    assert verdicts._skipped(notebook) == notebook.cells[-1].id


def test_a_shown_value_that_nothing_compares_is_found(read: Read) -> None:
    """What a student reads as a result was compared, or the lesson is not green."""
    notebook = executed(read(GRADIENT + "# %%\n1 + 1\n"), gradient=np.ones(4))
    assert verdicts._uncompared(notebook) == ""
    notebook.cells[-1].outputs = [_output(2)]
    assert verdicts._uncompared(notebook) == notebook.cells[-1].id


def test_a_leased_gpu_must_be_seen(read: Read) -> None:
    """A run that leased a GPU and shows no tensor from it did not use it."""
    lesson = read(expected=ORACLE)
    run = planner.Run(lesson, lesson.defaults, gpus=(Gpu("0", "GPU-0", "H100"),))
    results = verdicts.judge_checks(
        lesson,
        oracle.load(lesson),
        lesson.defaults,
        executed(lesson, gradient=4.0 * np.arange(4)),
    )
    status, reason = verdicts._status(run, results)
    assert (status, "leased cuda:0" in reason) == ("differs", True)
