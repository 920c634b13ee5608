"""Outputs that nobody compared: marked in HTML and PDF, and counted wherever checks are.

The cases are from this project's own reviews.
"""

import io
import json
import re

import pypdf
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.handout import prepare
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures

PRINTED = new_output("stream", text="the gradient is 999\n")
DISPLAYED = new_output("display_data", {"text/plain": "tensor(3.)"})
PICTURE = new_output("display_data", {"image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"/>'})
TABLE = new_output("display_data", {"text/html": "<table><tr><td>999</td></tr></table>"})


@pytest.mark.parametrize("output", [PRINTED, DISPLAYED, PICTURE, TABLE])
def test_the_page_marks_and_counts_it(make: Make, output: NotebookNode) -> None:  # noqa: F811
    """One label beside the output; the check table's JSON and its list say so too."""
    page = str(HandoutHTMLExporter().from_notebook_node(prepare(make(output), "en"))[0])
    assert page.count('<span class="mark loose">not compared</span>') == 1
    assert "2 values verified, 1 printed output not compared" in page
    assert "all verified" not in page
    [table] = re.findall(r'(?s)<script type="application/json".*?>(.*?)</script>', page)
    assert json.loads(table)["not_compared"] == 1
    assert any("not compared" in gap for gap in json.loads(table)["unverified"])


def test_the_pdf_marks_and_counts_it(make: Make) -> None:  # noqa: F811
    """The label is at the end of the output."""
    made, _ = HandoutPDFExporter().from_notebook_node(prepare(make(PRINTED), "zh"))
    words = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(made)).pages)
    assert re.search(r"999\s*未核对", words)
    assert "另有 1 处输出未核对" in words


def test_a_page_of_checks_alone_has_no_such_mark(make: Make) -> None:  # noqa: F811
    """Checked values, givens and expected errors are compared."""
    empty = new_output("stream", text="\n")
    page = str(HandoutHTMLExporter().from_notebook_node(prepare(make(empty), "en"))[0])
    assert 'mark loose"' not in page
    assert "2 values verified<" in page


@pytest.mark.parametrize(
    "text", ["'loss 0.5 at 0x1234567'", "'<torch.device object>'", "'[<matplotlib.lines.Line2D>]'"]
)
def test_a_compared_text_stays_as_it_was_compared(make: Make, text: str) -> None:  # noqa: F811
    """Addresses and types in it are the value's own, and not those of an object."""
    handout = make(new_output("execute_result", {"text/plain": text}, execution_count=4))
    picture = new_output("display_data", {"image/png": "AA"})
    notebook = handout.outcome.notebook
    assert notebook
    [cell] = [cell for cell in notebook.cells if cell.id == "cell-6"]
    cell.metadata["check"], cell.outputs = "words", [*cell.outputs, picture]
    [result, _] = prepare(handout, "en").cells[-1].outputs
    assert result.data == {"text/plain": text}
