"""Hostile content in a PDF, and content that cannot be set."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from ci.errors import CourseError
from ci.handout.handout import prepare
from tests.handout.pdf.conftest import Make, pages, pdf_of, printed, shown, text


def test_hostile_content_is_text(make: Make) -> None:
    """Typst's markup, HTML and control characters are printed as they are, or left out."""
    hostile = '#panic("x") $ *a* @b <c> \\ " ` ] } // d #eval("1") <script>e</script>'
    prepared = prepare(make(text(hostile + "\0\x07\x1b[31m"), text("ok")), "en")
    prepared.cells[-1].source = f"'''{hostile}'''"
    prepared.cells.append(new_markdown_cell(hostile.replace("$", "\\$")))
    error = new_output("error", ename="#x", evalue=hostile, traceback=[f"#x: {hostile}"])
    prepared.cells.append(new_code_cell("1", outputs=[error]))
    prepared.metadata.handout.rows[0].shown = hostile
    prepared.metadata.handout.rows[0].derivation = hostile
    prepared.metadata.handout.provenance["machine"] = hostile
    prepared.metadata.handout.notes = [hostile]
    prepared.metadata.handout.title = hostile
    text_on_paper = " ".join(pages(printed(prepared)))
    assert text_on_paper.count('#panic("x") $') >= 8
    assert text_on_paper.count("<script>e</script>") >= 8


def test_words_from_the_right_stay_and_hidden_turns_are_shown(make: Make) -> None:
    """Arabic is set; a character that would turn code around is named."""
    text_on_paper = " ".join(pages(printed(make(text("سلام"), text("a\u202eb")))))
    assert "<U+202E>" in text_on_paper
    assert re.search("[\u0600-\u06ff\ufe70-\ufeff]{4}", text_on_paper)


def test_hostile_headings_in_outputs_break_nothing(make: Make) -> None:
    """Markdown that a cell shows is rendered, even if it skips levels."""
    read = printed(make(shown("text/markdown", "##### Deep\n\n# Again")))
    assert "Deep Again" in " ".join(pages(read))


def test_a_character_without_a_glyph_is_an_error_with_its_cell(make: Make) -> None:
    """No empty box gets into a handout."""
    with pytest.raises(CourseError, match=r"03_gradients.py:\d+: no font .* 𓀀 \(U\+13000\)"):
        pdf_of(make(text("a 𓀀")))


def test_a_broken_picture_is_an_error_with_its_cell(make: Make) -> None:
    """A refusal of Typst is explained in one message, not as a traceback."""
    with pytest.raises(CourseError, match="03_gradients.py:44: Typst can't set it"):
        pdf_of(make(shown("image/png", "aGVsbG8=")))
