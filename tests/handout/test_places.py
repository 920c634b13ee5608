"""The link targets of a page's headings, and the code of its figures."""

import re

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ci.handout import html, markdown
from ci.handout.exporters import HandoutHTMLExporter

SLUGS = {
    "The *slope* of `x`": "the-slope-of-x",
    "1. Broadcast": "1-broadcast",
    "形状与步长": "形状与步长",
    "The mean of $x^2$": "the-mean-of-x2",
    "???": "section",
    "Checks": "checks-2",
    "Check mean": "check-mean-2",
    "Cell 1": "cell-1-2",
    'a" onclick="b': "a-onclick-b",
}


def page_of(*cells: NotebookNode) -> str:
    """The page of a notebook."""
    return str(HandoutHTMLExporter().from_notebook_node(new_notebook(cells=list(cells)))[0])


@pytest.mark.parametrize("heading", SLUGS)
def test_a_heading_has_a_place_made_of_its_words(heading: str) -> None:
    """It is no other place of the page, and stays when cells come and go."""
    cell = new_markdown_cell(f"## {heading}", id="cell-1")
    prose = markdown.render([cell.source], "html")
    [found] = html.contents([cell], prose, ["mean"])
    assert found.place == SLUGS[heading]


def test_headings_with_the_same_words_have_different_places() -> None:
    """Each has its own link, which is visible and leads to it."""
    page = page_of(new_markdown_cell("## Same\n\n## Same"), new_markdown_cell("### Same"))
    assert re.findall(r'<h[23] id="([^"]*)">', page) == ["same", "same-2", "same-3"]
    assert re.findall(r'class="link" href="#([^"]*)"', page) == ["same", "same-2", "same-3"]


def figure(source: str, *, draws: bool) -> NotebookNode:
    """A cell of a figure."""
    drawn = [
        new_output("display_data", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"})
    ]
    return new_code_cell(source, metadata={"tags": ["figure"]}, outputs=drawn if draws else [])


def test_a_figure_has_one_fold_with_all_of_its_code() -> None:
    """Below its caption, also if helpers have a cell of their own; another figure has another."""
    cells = [
        figure("def helper():\n    pass", draws=False),
        figure("helper()", draws=True),
        new_markdown_cell("**Figure.** One."),
        figure("other()", draws=True),
        figure("third()", draws=True),
    ]
    page = page_of(*cells)
    folds = re.findall(r'(?s)<details class="code">.*?</details>', page)
    code = [re.sub("<[^>]*>", "", fold) for fold in folds]
    assert ["helper():" in text for text in code] == [True, False, False]
    assert ["other()" in text for text in code] == [False, True, False]
    assert page.index("One.") < page.index('<details class="code">')
    assert all(f'id="{cell.id}"' in page for cell in cells if cell.cell_type == "code")


def test_a_page_describes_itself_and_keeps_code_from_translation() -> None:
    """For search engines, for previews of links, and for the translator of a browser."""
    page = page_of(new_markdown_cell('# T\n\nIt is "so" & `x`.'), new_code_cell("x = 1"))
    assert '<meta name="description" content="It is &#34;so&#34; &amp; x.">' in page
    assert '<meta property="og:description" content="It is &#34;so&#34; &amp; x.">' in page
    assert page.count('<code translate="no">') == page.count("<code") == 2


def picture(content: str) -> str:
    """The page of a figure with this picture."""
    kind = "image/svg+xml" if "svg" in content else "image/png"
    return page_of(new_code_cell("", outputs=[new_output("display_data", {kind: content})]))


def test_a_drawing_can_be_dark() -> None:
    """Its lines and its paper change places; the style sheet knows it by its class."""
    page = picture("<svg xmlns='http://www.w3.org/2000/svg'><path/></svg>")
    assert '<img class="drawing" src="data:image/svg+xml' in page
    assert "img.drawing" in page


@pytest.mark.parametrize(
    "content", ["<svg xmlns='http://www.w3.org/2000/svg'><image href=''/></svg>", "iVBORw0KGgo="]
)
def test_a_picture_of_points_stays_as_it_is(content: str) -> None:
    """The colours of a photograph or a heat map mean something."""
    assert '<img src="data:image/' in picture(content)
