"""Cells that print source code of the course: shown as code, and not counted as printed output."""

from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ci.judge.listings import mark_listings
from ci.judge.not_compared import not_compared
from ci.lesson import reader

LESSON = "# %% [markdown]\n# # A lesson\n# %%\n@wrap\ndef double(x):\n    return 2 * x\n"
DOUBLE = "@wrap\ndef double(x):\n    return 2 * x\n\n"
TRIPLE = "class Threefold:\n    def triple(x):\n        return 3 * x\n"


def is_listing(tmp_path: Path, source: str, *outputs: NotebookNode) -> bool:
    """Whether a cell with this source and these outputs is a listing of a lesson with a module."""
    script = tmp_path / "lessons" / "01_a.py"
    (script.parent / "helpers").mkdir(parents=True)
    script.write_text(LESSON)
    (script.parent / "helpers" / "more.py").write_text(TRIPLE)
    lesson = reader.read(script)
    cell = new_code_cell(source, outputs=list(outputs), execution_count=1)
    notebook = new_notebook(cells=[*lesson.notebook.cells, cell])
    mark_listings(notebook, lesson)
    assert ("listing" in cell.metadata) == (cell.id not in not_compared(notebook))
    return "listing" in cell.metadata


def printed(text: str, name: str = "stdout") -> NotebookNode:
    """A piece of printed text."""
    return new_output("stream", name=name, text=text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("print(inspect.getsource(double))", DOUBLE),
        ("print(getsource(double), end='')", DOUBLE),
        ("print(inspect.getsource(more.Threefold))", TRIPLE + "\n"),
        (
            "print(inspect.getsource(more.Threefold.triple))",
            "    def triple(x):\n        return 3 * x\n",
        ),
        ("for f in (double, Threefold):\n    print(getsource(f))", f"{DOUBLE}\n{TRIPLE}"),
        ("print(getsource(double))\nprint(getsource(Threefold))", DOUBLE + TRIPLE),
    ],
)
def test_source_of_the_course_is_a_listing(tmp_path: Path, source: str, text: str) -> None:
    """From the lesson or a module beside it, one or several functions and classes."""
    assert is_listing(tmp_path, source, printed(text))


def test_a_listing_may_be_printed_in_pieces(tmp_path: Path) -> None:
    """A kernel sends streams as it likes."""
    pieces = [printed(DOUBLE[:9]), printed(DOUBLE[9:])]
    assert is_listing(tmp_path, "print(inspect.getsource(double))", *pieces)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("print(inspect.getsource(double))", "def double(x):\n    return 3 * x\n"),
        ("print(inspect.getsource(double))", "loss = 0.1\n"),
        ("print(inspect.getsource(double))", f"{DOUBLE}0.999\n"),
        ("print(inspect.getsource(double))", "not Python"),
        ("print(inspect.getsource(double), accuracy)", DOUBLE),
        ("print()", DOUBLE),
        ("x = 1\nprint(inspect.getsource(double))", DOUBLE),
        ("print(inspect.getsource(double))\n%time", DOUBLE),
    ],
)
def test_other_printed_text_is_no_listing(tmp_path: Path, source: str, text: str) -> None:
    """What the course does not contain, or what a cell prints besides, is not compared."""
    assert not is_listing(tmp_path, source, printed(text))


def test_a_listing_has_no_other_output(tmp_path: Path) -> None:
    """A warning beside it would be shown as code."""
    outputs = [printed(DOUBLE), printed("Warning", name="stderr")]
    assert not is_listing(tmp_path, "print(inspect.getsource(double))", *outputs)
