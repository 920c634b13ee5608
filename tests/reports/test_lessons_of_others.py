"""Lessons that were written elsewhere: accepted as they are, or refused with what to do.

The cases are from this project's own reviews.
"""

import copy
import io
from pathlib import Path

import pypdf
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from ci.errors import CourseError
from ci.handout import check_prose, dialect, outputs, publish
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.handout import prepare
from ci.handout.translations import translations as labels
from ci.lesson import reader
from ci.run import plan as run_plan
from ci.worker.import_path import missing_modules
from tests.conftest import Read
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures
from tests.handout.pdf.conftest import png
from tests.reports.test_prose_of_others import html, in_jupyter, typst

CSS = Path(publish.__file__).parent / "templates" / "html" / "handout.css"

GALLERY = '''"""
Sines
=====

See :math:`x`.
"""
import torch

{mark}
# Cosines
# -------------------
# A text.
torch.zeros(2)
'''


def read_lesson(folder: Path, text: str) -> reader.Lesson:
    """The lesson of a script."""
    path = folder / "01_other.py"
    path.write_text(text, "utf-8")
    return reader.read(path)


ENGLISH = "# ---\n# jupyter:\n#   lesson:\n#     languages: [en]\n# ---\n\n"


def prose(folder: Path, text: str) -> reader.Lesson:
    """A lesson of one text."""
    lines = "".join(f"# {line}\n" for line in text.split("\n"))
    return read_lesson(folder, f"{ENGLISH}# %% [markdown]\n{lines}")


@pytest.mark.parametrize("mark", ["# %%", "#" * 70])
@pytest.mark.parametrize("before", ["", "# -*- coding: utf-8 -*-\n", "# words\n\n", "r"])
def test_a_script_of_sphinx_gallery_is_named(tmp_path: Path, mark: str, before: str) -> None:
    """One line, although it has no cells, and an underline looks like the end of a header."""
    with pytest.raises(CourseError) as raised:
        read_lesson(tmp_path, before + GALLERY.format(mark=mark))
    assert str(raised.value).endswith(
        "/01_other.py:1: a script of sphinx-gallery: make a notebook of it by "
        "sphinx_gallery_py2jupyter, and a script of that by `jupytext --to py:percent`"
    )


def test_a_script_without_cells_is_one_fault(tmp_path: Path) -> None:
    """A line of dashes in it is not the end of a header."""
    with pytest.raises(CourseError, match=r"01_other\.py:1: no cells found; run `jupytext"):
        read_lesson(tmp_path, '"""Words."""\nx = 1\n# --------------\ny = 2\n')


def test_a_script_of_nbconvert_is_named(tmp_path: Path) -> None:
    """Its texts are comments, which jupytext would leave in the code."""
    with pytest.raises(CourseError, match=r":1: a script of nbconvert: run .* on its notebook"):
        read_lesson(tmp_path, "# coding: utf-8\n\n# # Title\n\n# In[ ]:\n\n\nx = 1\n")


def test_a_text_as_code_is_named(read: Read) -> None:
    """A plain script's docstring becomes such a cell; its page would show it twice, as code."""
    with pytest.raises(CourseError) as raised:
        read('\n# %%\n"""\nSome words in one language.\n"""\n')
    first, second = str(raised.value).splitlines()
    assert first.endswith(":19: the cell is only a text: begin it with `# %% [markdown]`")
    assert ":19: this text has no lang=" in second
    read('\n# %% [markdown]\n"""\n$x$\n"""\n\n# %%\n"word"\n')


def test_a_cell_in_another_language_is_named(read: Read) -> None:
    """jupytext writes its lines as comments, which would be shown as Python and not executed."""
    with pytest.raises(CourseError, match=r"in bash is not executed: .*`%%bash` above its lines"):
        read('\n# %% language="bash"\n# ls\n')
    assert read('\n# %% language="python"\nx = 1\n').notebook.cells[-1].source == "x = 1"


def test_faults_of_cells_languages_and_prose_are_named_together(tmp_path: Path) -> None:
    """By `invoke run` and `invoke lint`, so that one round mends all of them."""
    (tmp_path / "lessons").mkdir()
    path = tmp_path / "lessons" / "01_other.py"
    path.write_text(
        '# %% language="bash"\n# ls\n\n# %% tags=["raises-exception"]\n1 / 0\n\n'
        "# %% [markdown]\n# Some words in one language, as in :ref:`x`.\n",
        "utf-8",
    )
    expected = [
        r":2: a cell in bash is not executed",
        r":5: the tag 'raises-exception'",
        r":8: this text has no lang=",
        r":8: :ref:`x` is reStructuredText",
    ]
    found = run_plan.faults([path], tmp_path / "build")
    with pytest.raises(CourseError) as raised:
        run_plan.plan(run_plan.Options(), tmp_path)
    for lines in (found, str(raised.value).splitlines()):
        assert [line.partition(part)[1] for line, part in zip(lines, expected, strict=True)] == (
            expected
        )


def test_a_tag_that_allows_errors_says_what_to_write(read: Read) -> None:
    """The attribute with the name of the error."""
    with pytest.raises(CourseError, match='could hide a fault: write raises="ValueError"'):
        read('\n# %% tags=["raises-exception"]\n1 / 0\n')


@pytest.mark.parametrize(
    ("source", "formula"),
    [
        ("$ x $", "$x$"),
        ("$f(z) = z^2 -1 $", "$f(z) = z^2 -1$"),
        (r"($ \alpha + 1$)", r"($\alpha + 1$)"),
        ("from $5 to $10 or $x y", "from $5 to $10 or $x y"),
        ("5 $ and 6 $ for $y$", "5 $ and 6 $ for $y$"),
        (r"$x \text{ for all } y$", r"$x \text{ for all } y$"),
        ("$\nx\n= y\n$\n\ntext", "$$x\n= y$$\n\ntext"),
        ("$\nx\n\ny\n$", "$\nx\n\ny\n$"),
        ("`$ x $`", "`$ x $`"),
    ],
)
def test_space_beside_dollars(source: str, formula: str) -> None:
    """Jupyter allows it in a formula; two prices are no formula."""
    assert dialect.canonical(source) == formula


@pytest.mark.parametrize("line", ["=", "-", "- b", "+ b", "* b", "1. b"])
@pytest.mark.parametrize(("before", "after"), [("$$", "$$"), ("x: $", "$")])
def test_a_line_of_a_formula_begins_no_list(line: str, before: str, after: str) -> None:
    """A line `=` in a formula would make a heading of the text above it."""
    page = html(f"{before}a\n{line}\nc{after}")
    assert page.startswith("<p>")
    assert page.count("<math") == page.count("<p>") == 1
    quoted = f"> {before}a\n> b\n> c{after}"
    assert dialect.canonical(quoted) == quoted


def test_a_broken_formula_is_one_fault(tmp_path: Path) -> None:
    """Not one for each of its lines; what follows it is named too."""
    with pytest.raises(CourseError) as raised:
        check_prose.check([prose(tmp_path, "$$\n\\alpha\n\n\\beta \\\\\n\\gamma\n$$\n\n\\delta")])
    lines = str(raised.value).split("\n")
    assert [line.split(": ")[1] for line in lines] == ["$$", r"\delta"]


BOXES = {
    '<div class="alert alert-info"><h4>Note</h4>\n\nMind the *gap*.\n\n</div>': "note",
    '<div class="alert alert-block alert-warning">\n<b>Warning:</b> Mind the *gap*.\n</div>': (
        "warning"
    ),
    "<div class='alert alert-success' role='alert'>\n    Mind the *gap*.\n</div>": "tip",
    '<div class="alert alert-danger"><strong>Important</strong> Mind the *gap*.</div>': (
        "important"
    ),
}


@pytest.mark.parametrize("box", BOXES)
def test_a_box_of_jupyter_is_a_callout(box: str) -> None:
    """sphinx-gallery writes its notes so."""
    page = html(f"before\n{box}\nafter")
    assert f'<div class="callout {BOXES[box]}" role="note">\n<p><strong>' in page
    assert page.count("<strong>") == 1
    assert "<p>Mind the <em>gap</em>.</p>\n</div>\n<p>after</p>" in page
    assert "#sheet.callout[" in typst(box)
    assert in_jupyter(box).strip().endswith("> Mind the *gap*.")


def test_links_in_html_are_links(tmp_path: Path) -> None:
    """With a picture inside, as the badges of notebooks have; a mere target is its words."""
    assert '<a href="https://x.y">a <strong>b</strong></a>' in html(
        '<a href="https://x.y">a\n<b>b</b></a>'
    )
    assert dialect.canonical('<a id="top"></a>Words <a name="here">here</a>') == "Words here"
    assert dialect.canonical('<a href="https://x.y"> </a>') == ""
    badge = '<a href="https://x.y">\n  <img src="https://x.y/z.svg" alt="Open"/>\n</a>'
    with pytest.raises(CourseError, match="z.svg: .*: save it beside the lesson, or remove it"):
        check_prose.check([prose(tmp_path, badge)])


def test_a_lesson_without_a_heading_has_its_name_as_title(make: Make) -> None:  # noqa: F811
    """In HTML as in the PDF."""
    with_heading, without = prepare(make(), "en"), prepare(make(), "en")
    for cell in without.cells:
        cell.source = cell.source.removeprefix("# Gradients")
    pages = [HandoutHTMLExporter().from_notebook_node(n)[0] for n in (with_heading, without)]
    assert [page.count("<h1") for page in pages] == [1, 1]
    assert "<h1>Gradients</h1>" in pages[1]


@pytest.mark.parametrize("first", [new_code_cell("early = 1"), new_markdown_cell("early = 1")])
def test_a_pdf_begins_with_its_title_and_notes(make: Make, first: NotebookNode) -> None:  # noqa: F811
    """Also where code or a text comes before the heading, which is not repeated there."""
    notebook = prepare(make(notes=[{"en": "Not verified.", "zh": "未经验证。"}]), "en")
    notebook.cells.insert(0, NotebookNode({**first, "id": "early"}))
    made = HandoutPDFExporter().from_notebook_node(notebook)[0]
    text = pypdf.PdfReader(io.BytesIO(made)).pages[0].extract_text()
    assert text.index("Gradients") < text.index("Not verified.") < text.index("early = 1")
    assert text.count("Gradients") == 1


def test_faults_are_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """As an author mends them, from top to bottom."""
    text = "Some words, :ref:`a`.\n\n![x](../x.png)\n\n:ref:`b`\n\n<video>"
    with pytest.raises(CourseError) as raised:
        check_prose.check([prose(tmp_path, text)])
    lines = [int(line.split(":")[1]) for line in str(raised.value).split("\n")]
    assert lines == [8, 10, 12, 14]


@pytest.mark.parametrize(
    "text",
    [
        "<matplotlib.legend.Legend at 0x7f3a>",
        "[<matplotlib.lines.Line2D object at 0x7f3a>]",
        "(array([1., 2.]), <BarContainer object of 2 artists>)",
        "Text(0.5, 1.0, 'title')",
        "<mpl_toolkits.mplot3d.art3d.Line3DCollection at 0x7f3a>",
    ],
)
def test_what_a_drawing_function_returns_is_not_beside_its_figure(text: str) -> None:
    """Notebooks end their cells with `plt.plot(…)` without a semicolon."""
    figure = new_output("display_data", {"image/png": png(), "text/plain": "<Figure>"})
    cell = new_code_cell("plot()", outputs=[new_output("execute_result", {"text/plain": text})])
    shown = copy.deepcopy(cell)
    outputs.settle(shown, labels("en"))
    assert len(shown.outputs) == 1
    cell.outputs.append(figure)
    outputs.settle(cell, labels("en"))
    assert [[*output.data] for output in cell.outputs] == [["image/png", "text/plain"]]
    value = new_code_cell("x", outputs=[new_output("execute_result", {"text/plain": "3"}), figure])
    outputs.settle(value, labels("en"))
    assert len(value.outputs) == 2


def test_entities_in_a_title_are_characters(tmp_path: Path) -> None:
    """The PDF shows the title at the head of each page, without markup."""
    made = prose(tmp_path, "# &nbsp; Sines &amp; cosines &nbsp;")
    assert made.titles["en"] == "Sines & cosines"


def test_no_rule_of_the_page_is_for_the_kind_of_a_callout() -> None:
    """The style of the page's own notes made the callouts `note` bold."""
    for kind in ("note", "tip", "important", "warning", "caution"):
        for line in CSS.read_text("utf-8").split("\n"):
            assert not line.startswith(f".{kind}"), line


def test_all_missing_modules_are_named(tmp_path: Path) -> None:
    """Also those of later cells; not what is in the standard library or beside the lesson."""
    (tmp_path / "beside.py").touch()
    (tmp_path / "folder").mkdir()
    cells = [
        "import sys, zipimport, torch.nn as nn, absent_a.b",
        "%magic\nimport x",
        "from absent_b.c import d\nimport beside, folder.e\nfrom . import f\nimport absent_a",
    ]
    assert missing_modules(cells, tmp_path) == ["absent_a", "absent_b"]
