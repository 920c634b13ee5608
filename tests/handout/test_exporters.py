"""A handout as files and as an HTML page: what they contain, and that hostile content is text."""

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert.exporters import get_exporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ci.handout import converters, notebook
from ci.handout.exporters import HandoutHTMLExporter
from ci.handout.handout import Handout, prepare
from tests.handout.conftest import RESULTS, Make


def page(made: Handout, language: str = "en") -> str:
    """The HTML handout."""
    prepared = prepare(made, language)
    return str(HandoutHTMLExporter().from_notebook_node(prepared)[0])


def text(content: str) -> NotebookNode:
    """An output of a print."""
    return new_output("stream", text=content)


def shown(**data: Any) -> NotebookNode:
    """A displayed output: `text_html="<b>"`."""
    kinds = {
        kind.replace("_", "/").replace("svg", "svg+xml"): value for kind, value in data.items()
    }
    return new_output("display_data", kinds)


# The three files


def test_a_lesson_has_six_files(make: Make, tmp_path: Path) -> None:
    """Three formats in two languages, with the name of the lesson."""
    paths = converters.write(make(), tmp_path / "out")
    names = [str(path.relative_to(tmp_path / "out")) for path in paths]
    languages, endings = ("en", "zh"), ("html", "pdf", "ipynb")
    assert names == [f"{a}/03_gradients.{b}" for a, b in itertools.product(languages, endings)]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_the_same_notebook_makes_the_same_bytes(make: Make, tmp_path: Path) -> None:
    """A handout contains no random number, no counter, and only the date of its run."""
    first, second = (
        converters.write(make(), tmp_path / "a"),
        converters.write(make(), tmp_path / "b"),
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_the_notebook_is_valid_and_ends_with_its_checks(make: Make, tmp_path: Path) -> None:
    """Its last cell has the check table and the provenance."""
    converters.write(make(), tmp_path)
    made = nbformat.read(tmp_path / "zh" / "03_gradients.ipynb", as_version=4)
    nbformat.validate(made)
    assert set(made.metadata) == {"kernelspec", "language_info"}
    last = made.cells[-1].source
    assert "| ✓ [gradient](#cell-id=cell-3) | 8.0 | 8.000001 | 2e\\-6 相对 | 25 % | cpu |" in last
    assert "给定值，未经核对" in last
    assert "2.13.0\\+cpu" in last


def test_a_table_in_the_notebook_is_not_broken_by_what_it_shows(make: Make) -> None:
    """A bar or a dollar in a value is that character, not a column or a formula."""
    odd = replace(RESULTS[0], shown="a|b $x$ `c` <i>")
    cell = notebook.text_of(notebook.lesson_notebook(prepare(make(results=(odd,)), "en")))
    assert r"a\\|b \\$x\\$ \\`c\\` \\<i\\>" in cell


def test_a_note_is_at_the_top_of_the_notebook(make: Make) -> None:
    """A draft says first that it is one."""
    made = make(notes=[{"en": "Not verified.", "zh": "未经核对。"}])
    first = notebook.lesson_notebook(prepare(made, "zh")).cells[0]
    assert first.source == "> **未经核对。**"


# HTML


def test_the_page_runs_its_own_script_alone_and_loads_nothing(make: Make) -> None:
    """The policy has the digest of the one script in the page."""
    html = page(make())
    [script] = re.findall(r"(?s)<script>(.*?)</script>", html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src" in unescape(html)
    assert len(re.findall("<script(?! type=.application/json)", html)) == 1
    assert not re.findall(r'(?:src|href|url)\s*[=(]\s*"?(?:https?:)?//', html)


def test_the_page_says_its_language(make: Make) -> None:
    """For screen readers, hyphenation and the choice of glyphs."""
    assert '<html lang="zh-CN">' in page(make(), "zh")
    assert '<html lang="en">' in page(make(), "en")


def test_the_page_holds_one_language(make: Make) -> None:
    """It links to the other one."""
    html = page(make(), "zh")
    assert "一句关于" in html
    assert "An English sentence" not in html
    assert 'href="../en/03_gradients.html"' in html


def test_the_page_has_mathml_and_tables(make: Make) -> None:
    """Formulas need no script, and tables are marked as tables."""
    html = page(make())
    assert "<mo>⊙</mo>" in html
    assert "<table>" in html


def test_each_link_within_the_page_leads_somewhere(make: Make) -> None:
    """A mark leads to its row, the row's name to its cell."""
    html = page(make())
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert {"check-gradient", "cell-3", "checks"} <= targets
    assert targets <= set(re.findall(r'id="([^"]+)"', html))


def test_the_table_says_what_was_compared(make: Make) -> None:
    """Shown, expected, tolerance, margin, device, derivation; a given is not called verified."""
    html = page(make())
    for value in (
        "8.000001",
        "2e-6 rel",
        "25 %",
        "dy/dx = 2 size.",
        "exact",
        "given, not verified",
    ):
        assert value in html
    assert "2 values verified, 1 printed output not compared" in html


def test_a_failed_check_is_unmistakable(make: Make) -> None:
    """At the top, beside its output and in the table."""
    bad = replace(RESULTS[0], status="differs", message="largest difference 1")
    html = page(make(results=(bad, *RESULTS[1:])))
    assert "✗ 1 of 3 checks NOT verified" in html
    assert "✗ gradient · mismatch" in html
    assert "mismatch: largest difference 1" in re.sub("<[^>]*>", "", html)


def test_hostile_outputs_do_nothing_in_the_page(make: Make) -> None:
    """Scripts, handlers, remote pictures and markup in outputs are dropped or shown as text."""
    html = page(
        make(
            text("</code></pre><script>alert(1)</script>"),
            shown(text_html="<table><tr><td><b>kept</b><script>alert(2)</script></table>"),
            shown(text_html="<table><tr><td>1<img src='http://x.y/z.png'></table>"),
            shown(text_html="<a href='javascript:alert(3)' onclick='alert(4)'>link</a>"),
            shown(image_svg="<svg xmlns='http://www.w3.org/2000/svg'><script>a()</script></svg>"),
            shown(text_markdown="<script>alert(5)</script>"),
            shown(application_javascript="alert(6)"),
        )
    )
    assert "<b>kept</b>" in html
    assert len(re.findall("<script(?! type=.application/json)", html)) == 1
    assert "<svg" not in html
    assert "alert(6)" not in html
    assert not re.search(r"<[^>]*(onclick|javascript:|x\.y)", html)


def test_an_output_that_looks_like_prose_is_an_output(make: Make) -> None:
    """Printed text is not rendered as Markdown, even if a Markdown cell has the same text."""
    prose = prepare(make(), "en").cells[0].source
    assert page(make(text(prose))).count("<h1>") == 1


# Any notebook, by nbconvert


@pytest.mark.parametrize("name", ["handout_html", "handout_pdf"])
def test_the_exporters_take_any_notebook(name: str) -> None:
    """`jupyter nbconvert --to handout_html` works on a notebook that is not a lesson."""
    cell = new_code_cell("df", outputs=[shown(text_html="<table><tr><td>1</td></tr></table>")])
    plain = new_notebook(cells=[nbformat.v4.new_markdown_cell("# Mine\n\n$x$"), cell])
    made, _ = get_exporter(name)().from_notebook_node(plain)
    assert len(made) > 1000


def test_the_error_itself_is_marked(make: Make) -> None:
    """The last line of a traceback, after the frames."""
    assert "<strong>ValueError: invalid literal in …/file.py</strong>" in page(make())


def test_the_check_table_is_folded_unless_something_failed(make: Make) -> None:
    """A link to a check opens it."""
    bad = replace(RESULTS[0], status="differs", message="largest difference 1")
    assert "<details><summary>2 values verified" in page(make())
    assert "<details open><summary>1 of 3" in page(make(results=(bad, *RESULTS[1:])))
