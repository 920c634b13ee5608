"""Prose as others write it: it means the same in HTML, in PDF and in the notebook.

Cases without an address are from this project's own reviews.
"""

import base64
import io
from pathlib import Path

import nbformat
import pypdf
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from ci.handout import check_prose, dialect, jupyter_prose, markdown
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.lesson import reader
from tests.conftest import HEADER
from tests.handout.pdf.conftest import png

CALLOUTS = {
    "MyST, fenced": "```{note}\nMind the *gap*.\n```",
    "MyST, not closed": "```{note}\nMind the *gap*.",
    "MyST, colons": ":::{note}\nMind the *gap*.\n:::",
    "pandoc": "::: note\nMind the *gap*.\n:::",
    "GitHub": "> [!NOTE]\n> Mind the *gap*.",
    "MkDocs": "!!! note\n    Mind the *gap*.",
}


def html_of(*cells: NotebookNode) -> str:
    """The page of a notebook."""
    return str(HandoutHTMLExporter().from_notebook_node(new_notebook(cells=list(cells)))[0])


def pdf_of(*cells: NotebookNode) -> pypdf.PdfReader:
    """The PDF of a notebook."""
    made = HandoutPDFExporter().from_notebook_node(new_notebook(cells=list(cells)))[0]
    return pypdf.PdfReader(io.BytesIO(made))


def words_of(document: pypdf.PdfReader) -> str:
    """The words of a PDF, in one line."""
    return " ".join(" ".join(page.extract_text() for page in document.pages).split())


def html(text: str) -> str:
    """A text of Markdown in HTML."""
    return markdown.render([text], "html")[text]


def typst(text: str) -> str:
    """A text of Markdown in Typst."""
    return markdown.render([text], "typst")[text]


def in_jupyter(text: str) -> str:
    """A text of Markdown in the notebook of the students."""
    return jupyter_prose.rewrite(dialect.canonical(text))


@pytest.mark.parametrize("text", ["a<!-- note --> b", "a\n\n<!-- note\n\nnote -->\n\nb"])
def test_a_comment_is_dropped(text: str) -> None:
    """It is for the author, in all formats."""
    for shown in (html(text), typst(text), in_jupyter(text)):
        assert "note" not in shown
        assert "a" in shown
        assert "b" in shown


def test_code_stays_as_it_is() -> None:
    """What looks like a comment, a formula or a callout in code is code."""
    text = "`<!-- a -->` and `\\(x\\)`\n\n````\n<!-- b -->\n```{note}\n\\[x\\]\n```\n````"
    assert dialect.canonical(text) == text
    assert in_jupyter(text) == text


@pytest.mark.parametrize("text", CALLOUTS.values(), ids=CALLOUTS)
def test_a_callout_is_one_in_all_formats(text: str) -> None:
    """It has its title and its emphasis, and nothing of its marks is left."""
    page, paper = html(text), typst(text)
    assert '<div class="callout note" role="note">' in page
    assert "<strong>Note</strong>" in page
    assert "<em>gap</em>" in page
    assert "#sheet.callout[" in paper
    assert "#strong[Note]" in paper
    assert in_jupyter(text).startswith("> **Note**\n>\n> Mind the *gap*.")
    assert words_of(pdf_of(new_markdown_cell(text))).endswith("Note Mind the gap. 1 / 1")


def test_a_callout_has_a_title_of_its_own_and_speaks_chinese() -> None:
    """A title is shown in its text, and the kind is named in the language of the text."""
    assert "<strong>Mind</strong>" in html('!!! warning "Mind"\n\n    text\n\nafter')
    assert html("!!! tip\n    a\n\nafter").endswith("<p>after</p>")
    assert "<strong>警告</strong>" in html(":::{warning}\n小心台阶\n:::")


def test_small_tags_are_set() -> None:
    """Line breaks, indices and keys are not shown as source."""
    text = "H<sub>2</sub>O, x<sup>2</sup>, a<br>b, <kbd>Ctrl</kbd>, <b>c</b>"
    page, paper = html(text), typst(text)
    for shown in ("H<sub>2</sub>O", "x<sup>2</sup>", "a<br />", "<kbd>Ctrl</kbd>"):
        assert shown in page
    assert "#sub[2]" in paper
    assert "#super[2]" in paper
    assert "#sheet.key[Ctrl]" in paper
    assert "<" not in words_of(pdf_of(new_markdown_cell(text)))


def test_a_folded_part_is_one() -> None:
    """It opens at a click in HTML, and is on a later page of the PDF, with its title."""
    text = "<details><summary>More</summary>\nsome *text*\n</details>\nafter"
    page = html(text)
    assert "<details>\n<summary>More</summary>\n<p>some <em>text</em></p>\n</details>" in page
    document = pdf_of(new_markdown_cell(text))
    first, second = (" ".join(each.extract_text().split()) for each in document.pages)
    assert "More → page 2 after" in first
    assert "More ← page 1 some text" in second


@pytest.mark.parametrize(
    "source", ["![A red one](a%20b.png)", '<img src="a b.png" alt="A red one">']
)
def test_a_local_picture_is_in_all_formats(tmp_path: Path, source: str) -> None:
    """Embedded in HTML and PDF, with its words; attached in the notebook."""
    (tmp_path / "a b.png").write_bytes(base64.b64decode(png()))
    cell = new_markdown_cell(f"see {source} here")
    dialect.attach(cell, tmp_path)
    page = html_of(cell)
    assert f'<img src="data:image/png;base64,{png()}" alt="A red one">' in page
    document = pdf_of(cell)
    assert len(document.pages[0].images) == 1
    [(name, content)] = cell.attachments.items()
    assert cell.source == f"see ![A red one](attachment:{name}) here"
    assert content == {"image/png": png()}
    nbformat.validate(new_notebook(cells=[cell]))


def test_a_link_to_a_lesson_leads_to_its_handout(tmp_path: Path) -> None:
    """In the same format and language."""
    text = "see [lesson 2](02_tensors.py)"
    assert '<a href="02_tensors.html">lesson 2</a>' in html(text)
    assert '#link("02_tensors.pdf")[lesson 2]' in typst(text)
    assert in_jupyter(text) == "see [lesson 2](02_tensors.ipynb)"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("中文\n换行", "中文换行"),
        ("中文，\nPyTorch", "中文，PyTorch"),
        ("中文\nPyTorch", "中文\nPyTorch"),
        ("中文\n\n- 一\n- 二", "中文\n\n- 一\n- 二"),
        ("> 中文\n> 引用", "> 中文引用"),
        ("```\n中文\n换行\n```", "```\n中文\n换行\n```"),
        ("| 一 |\n|---|\n| 二 |", "| 一 |\n|---|\n| 二 |"),
        ("two\nwords", "two\nwords"),
    ],
)
def test_chinese_lines_are_joined_in_jupyter(source: str, shown: str) -> None:
    """JupyterLab shows a line break as a space, which Chinese does not have."""
    assert in_jupyter(source) == shown


@pytest.mark.parametrize(
    ("source", "formula"),
    [
        (r"\(x^2\)", "$x^2$"),
        (r"\[y = x\]", "$$y = x$$"),
        (r"\\(x^2\\)", "$x^2$"),
        ("```{math}\ny = x\n```", "$$y = x$$"),
        (
            r"\begin{align}a &= b\\ c &= d\end{align}",
            r"$$\begin{align}a &= b\\ c &= d\end{align}$$",
        ),
        ("$\\begin{pmatrix}1\\\\\n2\\end{pmatrix}$", "$\\begin{pmatrix}1\\\\\n2\\end{pmatrix}$"),
        (r"\\[2pt] is not open", r"\\[2pt] is not open"),
    ],
)
def test_formulas_of_others_are_formulas(source: str, formula: str) -> None:
    """In parentheses, in brackets, in a directive, and as a bare environment."""
    assert dialect.canonical(source) == formula


def test_bars_in_a_formula_do_not_end_a_cell_of_a_table() -> None:
    """A table has the columns of its head."""
    text = "| a | b |\n|---|---|\n| $|x|$ | $\\|y\\|$ |"
    page = html(text)
    assert page.count("<td>") == 2
    assert page.count("∣") + page.count("|</mo>") == 2
    assert page.count("∥") + page.count("‖") == 2
    assert page.count("<math") == 2


def test_a_lesson_of_all_this_is_accepted(tmp_path: Path) -> None:
    """The check before the kernels start refuses nothing that is shown."""
    (tmp_path / "x.png").write_bytes(base64.b64decode(png()))
    parts = [*CALLOUTS.values(), "<!-- c -->", "![x](x.png)", "a<br>b", "[l](01_one.py)", r"\(x\)"]
    lines = "\n\n".join(["# Title", *parts]).split("\n")
    source = "\n".join(f"# {line}".rstrip() for line in lines)
    path = tmp_path / "01_one.py"
    cells = f'# %% [markdown] lang="en"\n{source}\n\n# %% [markdown] lang="zh"\n{source}\n'
    path.write_text(f"{HEADER}\n{cells}\n# %%\nx = 1\n", "utf-8")
    check_prose.check([reader.read(path)])


def test_characters_of_every_kind_are_in_the_pdf() -> None:
    """Emoji and Korean have a font; a character that Unicode has twice has its usual form."""
    text = "🦙 한국어 ⼀ \uf99c [a](https://x.y/🦙)"
    words = words_of(pdf_of(new_markdown_cell(text)))
    assert "🦙 한국어 一 列" in words
    assert "https://x.y/%F0%9F%A6%99" in words
    assert "一 列" in html(text)


@pytest.mark.parametrize(
    ("tex", "set_tight"),
    [("|x|", 2), (r"\|x\|", 2), (r"p(x|y)", 1), (r"\left.f\right|_0", 1), (r"a \mid b", 0)],
)
def test_bars_stand_close_to_what_they_enclose(tex: str, set_tight: int) -> None:
    """In TeX a bar is like a letter, unless it is a relation; in Typst it always is one."""
    assert typst(f"${tex}$").count('class("normal"') == set_tight
    assert "block: true" not in typst(f"${tex}$")
    table = typst(f"| a |\n|---|\n| ${tex}$ |")
    assert table.count('class("normal"') == set_tight


def test_a_larger_delimiter_is_a_sign() -> None:
    r"""pandoc writes `\big\langle` as text between brackets."""
    words = words_of(pdf_of(new_markdown_cell(r"$\big\langle x \big\rangle \big\| y \big\|$")))
    assert "chevron" not in words
    assert "parallel" not in words


@pytest.mark.parametrize(("width", "lines"), [(20, 1), (400, 2)])
def test_a_small_picture_stays_in_its_line(width: int, lines: int) -> None:
    """A larger one gets a line of its own."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="9"><path/></svg>'
    picture = {"image/svg+xml": base64.b64encode(svg.encode()).decode()}
    text = "before ![a](attachment:a.svg) after"
    [page] = pdf_of(new_markdown_cell(text, attachments={"a.svg": picture})).pages
    found = page.extract_text(extraction_mode="layout").splitlines()
    assert len([line for line in found if "before" in line or "after" in line]) == lines
