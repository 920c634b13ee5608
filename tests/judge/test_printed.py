"""Checks of printed text."""

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from ci.errors import CourseError
from ci.judge import verdicts
from ci.judge.compare import Comparison
from ci.judge.printed import compare_printed, printed_text
from ci.lesson import oracle
from ci.lesson.expect import Rule
from ci.lesson.value import Comparable
from tests.conftest import Read

CASES = [
    ("loss 0.25\n", "loss 0.25", True),
    ("loss 0.25  \n\n", "loss 0.25\n", True),
    ("loss 0.2500001\n", "loss 0.25", True),
    ("loss 0.2501\n", "loss 0.25", False),
    ("loss -0.25\n", "loss 0.25", False),
    ("losses 0.25\n", "loss 0.25", False),
    ("epoch 10\n", "epoch 11", False),
    ("epoch 1000000\n", "epoch 1000001", False),
    ("epoch 1\nepoch 2\n", "epoch 1", False),
    ("1e-5 [1. 2.]\n", "1.0e-05 [1.0 2.0]", True),
    ("size 1\n", "size 1.0", False),
    ("float32 x1\n", "float64 x1", False),
    ("nan\n", "0.5", False),
    ("9" * 5000, "9" * 5000, True),
    ("9" * 5000, "9" * 4999 + "8", False),
    ("1e400", "1e401", False),
    ("٣", "3", False),
    ("-0", "0", False),
    ("007", "7", False),
    ("0.1235", "0.12345000001", True),
    ("0.1234", "0.12345000001", True),
    ("0.1233", "0.12345", False),
    ("1.235e-05", "1.23456e-5", True),
    ("0.12", "0.126", False),
    ("0.0", "0.04", False),
    ("It is 1000000.", "It is 1000001.", False),
    ("It is 0.5000001.", "It is 0.5.", True),
    ("loss 9\r   \n", "loss 9", False),
    ("loss 9\r\n", "loss 9\n", True),
    ("loss 9\n\r \n", "loss 9", False),
]


@pytest.mark.parametrize(("shown", "expected", "agree"), CASES)
def test_words_are_equal_and_numbers_are_close(shown: str, expected: str, agree: bool) -> None:
    """Each number by the tolerance of the lesson's dtype, wherever it stands in the line."""
    comparison = Comparison(Rule(), {})
    compare_printed(comparison, Comparable("plain", shown), Comparable("plain", expected))
    assert (not comparison.faults, comparison.invalid) == (agree, [])


@pytest.mark.parametrize(("shown", "expected"), [("a", ""), ("", "a")])
def test_text_differs_from_none(shown: str, expected: str) -> None:
    """A cell may print in one case only; in another one its text is too much, or missing."""
    comparison = Comparison(Rule(), {})
    compare_printed(comparison, Comparable("plain", shown), Comparable("plain", expected))
    assert len(comparison.faults) == 1


def test_an_oracle_without_text_is_invalid() -> None:
    """Only a text can be compared with what a cell prints."""
    comparison = Comparison(Rule(), {})
    compare_printed(comparison, Comparable("plain", "1"), Comparable("plain", 1))
    assert comparison.invalid == ["its oracle must return the text that the cell prints"]


def test_only_standard_output_is_read() -> None:
    """A warning or a displayed object is not part of the text."""
    outputs = [
        new_output("stream", name="stderr", text="careful\n"),
        new_output("display_data", {"text/plain": "4"}),
    ]
    cell: NotebookNode = new_code_cell("", execution_count=1, outputs=outputs)
    assert printed_text(cell).value == ""
    cell.outputs += [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    assert printed_text(cell).value == "a\nb\n"


SCRIPT = '# %% stdout="line"\nprint(f"half of {size} is {size / 2:.1f}")\n'
ORACLE = '''\
def line(size):
    """Half of n is n / 2."""
    return f"half of {size} is {size / 2:.1f}"
'''


@pytest.mark.parametrize(("text", "status"), [("half of 4 is 2.0\n", "verified"), ("4", "differs")])
def test_a_cell_with_stdout_is_judged_by_its_oracle(read: Read, text: str, status: str) -> None:
    """The oracle returns the text, from the parameters of the run."""
    lesson = read(SCRIPT, expected=ORACLE)
    cell = lesson.notebook.cells[-1]
    cell.execution_count, cell.outputs = 1, [new_output("stream", name="stdout", text=text)]
    results = verdicts.judge_checks(lesson, oracle.load(lesson), lesson.defaults, lesson.notebook)
    assert [(result.check.name, str(result.status)) for result in results] == [("line", status)]


def test_stdout_is_the_only_check_of_its_cell(read: Read) -> None:
    """So that each name has one value."""
    with pytest.raises(CourseError, match="stdout= is the only check"):
        read(SCRIPT.replace('stdout="line"', 'stdout="line" check="other"'))
