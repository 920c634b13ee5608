"""Content that cannot be set: the message names the cell and the fault, in one line."""

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from ci.errors import CourseError
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.handout import prepare
from ci.handout.refusals import first_refused
from tests.handout.conftest import Make

LINKING_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="a.png"/></svg>"""


def printed(content: str) -> NotebookNode:
    """An output of a print."""
    return new_output("stream", text=content)


def shown(kind: str, content: str) -> NotebookNode:
    """A displayed output."""
    return new_output("display_data", {kind: content})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (printed("a \ue000 b"), "a PDF may not contain the character U+E000; remove it"),
        (printed("a 𓀀"), "no font of the handouts has the character 𓀀 (U+13000)"),
        (
            shown("image/svg+xml", LINKING_SVG),
            "an SVG in its output loads the file a.png: embed it as a data: URL",
        ),
        (shown("image/png", "AAAA"), "Typst can't set it: failed to decode image"),
        (shown("image/png", "A"), "a picture in its output is not base64"),
        (
            shown("text/latex", r"$\displaystyle \smash{x}$"),
            r"the formula \displaystyle \smash{x} can't be set: pandoc does not know this TeX",
        ),
        (shown("text/markdown", " ".join(["x" * 80] * 600)), "make it shorter or less nested"),
    ],
)
def test_an_output_is_refused_with_the_line_of_its_cell(
    make: Make, output: NotebookNode, message: str
) -> None:
    """The fault is in the last cell of the lesson; the message is one line."""
    with pytest.raises(CourseError) as caught:
        HandoutPDFExporter().from_notebook_node(prepare(make(output), "en"))
    assert str(caught.value).startswith("lessons/03_gradients.py:34: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_html_names_the_cell_too(make: Make) -> None:
    """The HTML page is made before the PDF."""
    notebook = prepare(make(shown("text/latex", r"$\smash{x}$")), "zh")
    with pytest.raises(CourseError, match=r"03_gradients.py:34: the formula \\smash"):
        HandoutHTMLExporter().from_notebook_node(notebook)


# https://github.com/typst/typst/issues/6694
def test_many_long_lines_can_be_set(make: Make) -> None:
    """Typst has a limit for the long words of one paragraph; each line of an output is its own."""
    lines = "\n".join(["x" * 300] * 600)
    assert HandoutPDFExporter().from_notebook_node(prepare(make(printed(lines)), "en"))[0]


def test_the_first_refused_item_is_found() -> None:
    """At any place, also before others that are refused."""

    def convert(items: list[int]) -> None:
        if any(item < 0 for item in items):
            raise CourseError("negative")

    assert first_refused([1, -2, 3, -4], convert) == -2
    assert first_refused([-1], convert) == -1
    assert first_refused([1, 2], convert) is None
