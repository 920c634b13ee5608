"""What a screen reader, a printer and poppler find in a PDF."""

import re
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest

from tests.handout.pdf.conftest import Make, pages, pdf_of, png, poppler_says, printed, prose, shown


def tags(read: pypdf.PdfReader) -> Iterator[tuple[str, str]]:
    """The structure of a PDF in its order: each kind, and the words for who can't see it."""
    waiting = [read.root_object["/StructTreeRoot"]]
    while waiting:
        node = waiting.pop().get_object()
        if isinstance(node, pypdf.generic.DictionaryObject):
            yield str(node.get("/S", ""))[1:], str(node.get("/Alt", ""))
            children = node.get("/K", [])
            children = children if isinstance(children, list) else [children]
            waiting += reversed(children)


def test_the_pdf_is_tagged_for_screen_readers(make: Make) -> None:
    """Headings, lists, tables, code, links are marked as what they are; it claims PDF/UA."""
    read = printed(make())
    kinds = [kind for kind, _ in tags(read)]
    assert {"TOC", "P", "Code", "Table", "TH", "TD", "Figure", "Caption", "Link"} <= set(kinds)
    assert [kind for kind in kinds if re.fullmatch(r"H\d", kind)] == [
        *("H1", "H2", "H2", "H3", "H3", "H2", "H2")
    ]
    assert read.root_object["/MarkInfo"]["/Marked"]
    assert b"<pdfuaid:part>1<" in read.root_object["/Metadata"].get_data()


def test_figures_and_formulas_have_words(make: Make) -> None:
    """A figure has its caption's, without Markdown; a formula its TeX."""
    texts = [(kind, alt) for kind, alt in tags(printed(make())) if alt]
    assert ("Figure", "Figure. The slope of x² at x, rising.") in texts
    assert ("Formula", r"\nabla f \odot x") in texts
    assert ("Figure", "图。x² 的斜率。") in list(tags(printed(make(), "zh")))


def test_a_figure_without_a_caption_says_so(make: Make) -> None:
    """There is always something to hear."""
    made = make(shown("image/png", png()))
    assert ("Figure", "Figure, described in the text") in list(tags(printed(made)))


def test_a_notebook_that_skips_headings_does_not_claim_to_be_accessible() -> None:
    """It is set all the same."""
    read = printed(prose("### Deep"))
    assert b"pdfuaid" not in read.root_object["/Metadata"].get_data()
    assert "Deep" in pages(read)[0]


@pytest.mark.usefixtures("poppler")
def test_poppler_finds_nothing_wrong(make: Make, tmp_path: Path) -> None:
    """Not one complaint, and it sees that the file is tagged and A4."""
    output = poppler_says("pdfinfo", pdf_of(make()), tmp_path)
    assert re.search(r"Tagged: +yes", output)
    assert re.search(r"Page size: +595\S* x 841\S* pts \(A4\)", output)


@pytest.mark.usefixtures("poppler")
def test_all_fonts_are_embedded_and_can_be_searched(make: Make, tmp_path: Path) -> None:
    """In both languages each has its glyphs and its characters in the file."""
    for language in ("en", "zh"):
        _, _, *fonts = poppler_says("pdffonts", pdf_of(make(), language), tmp_path).splitlines()
        assert len(fonts) >= 4
        for font in fonts:
            embedded, _, searchable = font.split()[-5:-2]
            assert (embedded, searchable) == ("yes", "yes"), font


def test_chinese_has_a_real_bold_face(make: Make) -> None:
    """Two instances of the variable font are embedded, none is slanted or smeared."""
    fonts = {
        font.get_object()["/BaseFont"]
        for page in printed(make(), "zh").pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert len([name for name in fonts if "NotoSansSC" in name]) == 2
