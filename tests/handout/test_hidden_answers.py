"""What a reader predicts before looking, and source code that a cell prints."""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from ci.handout import notebook
from tests.handout.test_places import page_of
from tests.reports.test_prose_of_others import pdf_of


def predicted() -> NotebookNode:
    """A cell whose output a reader predicts."""
    result = new_output("execute_result", {"text/plain": "1764"}, execution_count=1)
    return new_code_cell("42**2", metadata={"tags": ["predict"]}, outputs=[result])


def test_a_predicted_output_is_hidden() -> None:
    """It opens at a click; the code is visible."""
    page = page_of(predicted())
    [fold] = re.findall(r'(?s)<details class="later">.*?</details>', page)
    assert "1764" in fold
    assert page.count("1764") == 1
    assert "42" not in fold


def test_the_pdf_shows_a_predicted_output_on_a_later_page() -> None:
    """Below its own heading, with a link in both directions."""
    document = pdf_of(new_markdown_cell("# T"), predicted(), new_markdown_cell("The end."))
    first, second = (page.extract_text() for page in document.pages)
    assert "1764" not in first
    assert "Output → page 2" in first
    assert "1764" in second
    assert "Output ← page 1" in second


def test_jupyter_collapses_a_predicted_output() -> None:
    """JupyterLab and the older notebook read two different keys."""
    metadata = notebook.for_jupyter(predicted()).metadata
    assert metadata["collapsed"]
    assert metadata["jupyter"]["outputs_hidden"]


def test_a_listing_is_code_without_its_print() -> None:
    """In HTML and PDF; a cell that prints something else keeps its source."""
    cell = new_code_cell("print(getsource(f))", metadata={"listing": True})
    cell.outputs = [new_output("stream", text="def f(x):\n    return x\n\n")]
    page, document = page_of(cell), pdf_of(cell)
    assert '<span class="k">def</span>' in page
    assert "getsource" not in page
    assert "def f(x):" in document.pages[0].extract_text()
    assert "getsource" not in document.pages[0].extract_text()
