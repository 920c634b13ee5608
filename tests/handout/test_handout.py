"""From an executed notebook to handouts: what they hold, and what never gets into them."""

import base64
import copy
import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert.exporters import get_exporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ci.handout import handout
from ci.handout.handout import Handout
from ci.judge.outcome import Result
from ci.lesson import reader
from ci.lesson.lesson import Check, Lesson
from ci.lesson.value import MIME

LESSON = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown] lang="en"
# # Gradients
#
# An English sentence about **slopes**, $\\nabla f \\odot x$.
#
# | a | b |
# |---|---|
# | 1 | $x_2$ |

# %% [markdown] lang="zh"
# # 梯度
#
# 一句关于**斜率**的中文，$\\nabla f \\odot x$。

# %% tags=["parameters"]
size: int = 4  # 长度, the length
device: str = "cpu"  # where the tensors live

# %% check="gradient"
2 * size

# %% given="draws"
draws

# %% raises="ValueError"
int("x")

# %%
print("hello")
"""

TRACEBACK = """\
\x1b[31m----------\x1b[39m
\x1b[31mValueError\x1b[39m            Traceback (most recent call last)
Cell \x1b[32mIn[5]\x1b[39m, line 1
----> 1 int("x")

File ~/.venv/lib/python3.11/deep.py:12, in int(x)
     11 def int(x):
---> 12     raise

File /opt/python/lib/deeper.py:12, in int(x)
---> 12     raise

ValueError: invalid literal in /home/me/secret/file.py"""

RESULTS = (
    Result(
        Check("gradient", "value", "cell-3", 20),
        "verified",
        shown="8.0",
        expected="8.000001",
        derivation="dy/dx = 2 size.",
        tolerance="2e-6 rel",
        margin=0.25,
        devices=("cpu",),
    ),
    Result(
        Check("draws", "given", "cell-4", 23), "given", shown="[7 7]", expected="given, not derived"
    ),
    Result(
        Check("raises_at_line_26", "raises", "cell-5", 26, "ValueError"),
        "verified",
        shown="ValueError",
        expected="ValueError",
        derivation="The cell must raise ValueError.",
        tolerance="exact",
        margin=0.0,
    ),
)

FACTS = {"torch": "2.13.0+cpu", "device": "cpu (a small one)", "date": "2026-11-23 21:05 UTC"}
Make = Callable[..., Handout]


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """The lesson above, read."""
    path = tmp_path / "lessons" / "03_gradients.py"
    path.parent.mkdir()
    path.write_text(LESSON, encoding="utf-8")
    return reader.read(path)


@pytest.fixture
def make(lesson: Lesson) -> Make:
    """A handout of the lesson; `outputs` are those of its last cell."""

    def make(*outputs: NotebookNode, **changes: Any) -> Handout:
        executed = copy.deepcopy(lesson.notebook)
        cells = {cell.id: cell for cell in executed.cells}
        for number, cell in enumerate(c for c in executed.cells if c.cell_type == "code"):
            cell.execution_count = number + 1
            cell.metadata["papermill"] = {"status": "completed"}
        injected = new_code_cell("size = 8", id="injected-parameters")
        injected.metadata["tags"] = ["injected-parameters"]
        executed.cells.insert(3, injected)
        data = {"text/plain": "tensor(8.)", MIME: {"kind": "float", "value": "8.0"}}
        cells["cell-3"].outputs = [new_output("execute_result", data, execution_count=3)]
        cells["cell-5"].outputs = [
            new_output(
                "error",
                ename="ValueError",
                evalue="invalid literal in /home/me/secret/file.py",
                traceback=TRACEBACK.splitlines(),
            )
        ]
        cells["cell-6"].outputs = list(outputs) or [new_output("stream", text="hello\n")]
        made = Handout(lesson, executed, RESULTS, {"size": 8, "device": "cpu"}, FACTS)
        return replace(made, **changes)

    return make


def page(made: Handout, language: str = "en") -> str:
    """The HTML handout."""
    prepared = handout.prepare(made, language)
    return str(handout.HandoutHTMLExporter().from_notebook_node(prepared)[0])


def text(said: str) -> NotebookNode:
    """An output of a print."""
    return new_output("stream", text=said)


def shown(**data: Any) -> NotebookNode:
    """A displayed output: `text_html="<b>"`."""
    kinds = {
        kind.replace("_", "/").replace("svg", "svg+xml"): value for kind, value in data.items()
    }
    return new_output("display_data", kinds)


# What a prepared notebook is


def test_a_language_keeps_its_own_prose_and_all_code(make: Make) -> None:
    """Cells of the other language go; cells without a language stay."""
    ids = [cell.id for cell in handout.prepare(make(), "zh").cells]
    assert ids == ["cell-1-zh", "cell-2", "cell-3", "cell-4", "cell-5", "cell-6"]


def test_one_parameters_cell_shows_the_values_used(make: Make) -> None:
    """The literal is the run's, annotation and comment stay, Papermill's own cell is gone."""
    cell = handout.prepare(make(), "en").cells[1]
    assert cell.source.splitlines()[0] == "size: int = 8  # 长度, the length"


def test_a_parameter_s_text_is_quoted(make: Make) -> None:
    """Whatever a text holds, the parameters cell is Python that means it."""
    cell = handout.prepare(make(parameters={"device": 'a"b\\中'}), "en").cells[1]
    namespace: dict[str, Any] = {}
    exec(cell.source, namespace)
    assert namespace["device"] == 'a"b\\中'


def test_the_private_value_is_taken_out(make: Make) -> None:
    """What the kernel attached for the checks is not for students."""
    [output] = handout.prepare(make(), "en").cells[2].outputs
    assert list(output.data) == ["text/plain"]


def test_a_traceback_shows_the_student_s_own_frames(make: Make) -> None:
    """Frames of libraries are one `…`, and no colour and no folder of this machine is left."""
    [error] = handout.prepare(make(), "en").cells[4].outputs
    assert error.traceback == [
        "Cell In[5], line 1",
        '----> 1 int("x")',
        "",
        "…",
        "",
        "ValueError: invalid literal in …/file.py",
    ]


def test_a_syntax_error_is_said_once(make: Make) -> None:
    """Its last line stands in its frame already."""
    lines = ["  Cell In[4], line 1", "    x = (1", "        ^", "SyntaxError: never closed"]
    error = new_output("error", ename="SyntaxError", evalue="never closed", traceback=lines)
    [output] = handout.prepare(make(error), "en").cells[5].outputs
    assert "\n".join(output.traceback).count("never closed") == 1


def test_warnings_do_not_name_the_machine_s_folders(make: Make) -> None:
    """What goes to stderr is shown without them."""
    warning = new_output("stream", name="stderr", text="/tmp/ipykernel_1/2.py:3: UserWarning: hey")
    [output] = handout.prepare(make(warning), "en").cells[5].outputs
    assert output.text == "…/2.py:3: UserWarning: hey"


def test_metadata_of_ours_and_papermill_is_taken_out(make: Make) -> None:
    """A cell keeps what a lesson's author wrote."""
    cells = handout.prepare(make(), "en").cells
    assert {key for cell in cells for key in cell.metadata} == {
        *("lang", "tags", "check", "given", "raises")
    }


def test_preparing_leaves_the_executed_notebook_alone(make: Make) -> None:
    """It is pure: the same notebook makes the other language's handout."""
    made = make()
    before = copy.deepcopy(made.notebook)
    handout.prepare(made, "en")
    assert made.notebook == before


# The three files


@pytest.mark.slow
def test_a_lesson_has_six_files(make: Make, tmp_path: Path) -> None:
    """Three formats in each of two languages, named as the lesson."""
    paths = handout.write(make(), tmp_path / "out")
    names = [str(path.relative_to(tmp_path / "out")) for path in paths]
    languages, endings = ("en", "zh"), ("html", "pdf", "ipynb")
    assert names == [f"{a}/03_gradients.{b}" for a, b in itertools.product(languages, endings)]
    assert all(path.stat().st_size > 1000 for path in paths)


@pytest.mark.slow
def test_the_same_notebook_makes_the_same_bytes(make: Make, tmp_path: Path) -> None:
    """Nothing in a handout is drawn, counted on or dated but by its run."""
    first, second = handout.write(make(), tmp_path / "a"), handout.write(make(), tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.slow
def test_the_notebook_is_valid_and_ends_with_its_checks(make: Make, tmp_path: Path) -> None:
    """A student's notebook opens anywhere; the table and the facts are its last cell."""
    handout.write(make(), tmp_path)
    notebook = nbformat.read(tmp_path / "zh" / "03_gradients.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    last = notebook.cells[-1].source
    assert "| ✓ [gradient](#cell-id=cell-3) | 8.0 | 8.000001 | 2e\\-6 相对 | 25 % | cpu |" in last
    assert "给定值，未经核对" in last
    assert "2.13.0\\+cpu" in last


def test_a_table_in_the_notebook_is_not_broken_by_what_it_shows(make: Make) -> None:
    """A bar or a dollar in a value is that character, not a column or a formula."""
    odd = replace(RESULTS[0], shown="a|b $x$ `c` <i>")
    cell = handout.notebook_text(handout.prepare(make(results=(odd,)), "en"))
    assert r"a\\|b \\$x\\$ \\`c\\` \\<i\\>" in cell


def test_a_note_stands_at_the_top_of_the_notebook(make: Make) -> None:
    """A draft says so before anything else."""
    made = make(notes=[{"en": "Not verified.", "zh": "未经核对。"}])
    notebook = nbformat.reads(handout.notebook_text(handout.prepare(made, "zh")), as_version=4)
    assert notebook.cells[0].source == "> **未经核对。**"


# HTML


@pytest.mark.slow
def test_the_page_runs_its_own_script_alone_and_loads_nothing(make: Make) -> None:
    """A strict policy, with the digest of the one script that stands in the page."""
    html = page(make())
    [script] = re.findall(r"(?s)<script>(.*?)</script>", html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src" in unescape(html)
    assert len(re.findall("<script(?! type=.application/json)", html)) == 1
    assert not re.findall(r'(?:src|href|url)\s*[=(]\s*"?(?:https?:)?//', html)


@pytest.mark.slow
def test_the_page_says_its_language(make: Make) -> None:
    """For screen readers, hyphenation and the choice of glyphs."""
    assert '<html lang="zh-CN">' in page(make(), "zh")
    assert '<html lang="en">' in page(make(), "en")


@pytest.mark.slow
def test_the_page_holds_one_language(make: Make) -> None:
    """The other one is a link away."""
    html = page(make(), "zh")
    assert "一句关于" in html
    assert "An English sentence" not in html
    assert 'href="../en/03_gradients.html"' in html


@pytest.mark.slow
def test_the_page_has_mathml_and_tables(make: Make) -> None:
    """Formulas need no script, a table is a table."""
    html = page(make())
    assert "<mo>⊙</mo>" in html
    assert "<table>" in html


@pytest.mark.slow
def test_each_link_within_the_page_leads_somewhere(make: Make) -> None:
    """A mark leads to its row, the row's name to its cell."""
    html = page(make())
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert {"check-gradient", "cell-3", "checks"} <= targets
    assert targets <= set(re.findall(r'id="([^"]+)"', html))


@pytest.mark.slow
def test_the_table_says_what_was_compared(make: Make) -> None:
    """Shown, expected, tolerance, margin, device, derivation; a given is no verified value."""
    html = page(make())
    for said in ("8.000001", "2e-6 rel", "25 %", "dy/dx = 2 size.", "exact", "given, not verified"):
        assert said in html
    assert "2 checks, all verified" in html


@pytest.mark.slow
def test_a_failed_check_is_unmistakable(make: Make) -> None:
    """At the top, beside its output and in the table."""
    bad = replace(RESULTS[0], status="differs", message="largest difference 1")
    html = page(make(results=(bad, *RESULTS[1:])))
    assert "✗ 1 of 3 checks NOT verified" in html
    assert "✗ gradient · mismatch" in html
    assert "mismatch: largest difference 1" in re.sub("<[^>]*>", "", html)


@pytest.mark.slow
def test_hostile_outputs_do_nothing_in_the_page(make: Make) -> None:
    """Scripts, handlers, remote pictures and markup in outputs are dropped or shown as text."""
    html = page(
        make(
            text("</code></pre><script>alert(1)</script>"),
            shown(text_html="<b>kept</b><script>alert(2)</script><img src='http://x.y/z.png'>"),
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


@pytest.mark.slow
def test_an_output_that_looks_like_prose_is_an_output(make: Make) -> None:
    """A print of what a Markdown cell holds is not set as Markdown."""
    prose = handout.prepare(make(), "en").cells[0].source
    assert page(make(text(prose))).count("<h1>") == 1


# Any notebook, by nbconvert


@pytest.mark.slow
@pytest.mark.parametrize("name", ["handout_html", "handout_pdf"])
def test_the_exporters_take_any_notebook(name: str) -> None:
    """`jupyter nbconvert --to handout_html` works on a notebook that is no lesson."""
    cell = new_code_cell("df", outputs=[shown(text_html="<table><tr><td>1</td></tr></table>")])
    plain = new_notebook(cells=[nbformat.v4.new_markdown_cell("# Mine\n\n$x$"), cell])
    made, _ = get_exporter(name)().from_notebook_node(plain)
    assert len(made) > 1000
