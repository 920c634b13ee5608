"""Derivations in the check table: words, in which formulas and code are set."""

import io
from dataclasses import replace
from pathlib import Path

import nbformat
import pypdf
import pytest

from ci.handout import check_prose, notebook
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.handout import Handout, prepare
from ci.handout.markdown import escape_words, render
from tests.handout.conftest import RESULTS, Make


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("w <- w - lr * grad_L, [1] & <b>", "w &lt;- w - lr * grad_L, [1] &amp; &lt;b&gt;"),
        ("1. The first.", "1. The first."),
        ("It costs $5 and $6.", "It costs $5 and $6."),
        ("`a_b * c` is *not* this", "<code>a_b * c</code> is *not* this"),
        ("f(x) = y[0](z), \\[1\\]", "f(x) = y[0](z), \\[1\\]"),
        ("two  lines\n  of it", "two lines of it"),
    ],
)
def test_words_are_no_markup(text: str, shown: str) -> None:
    """Docstrings are written as text."""
    source = escape_words(text)
    assert render([source], "html")[source] == f"<p>{shown}</p>"


def derived(make: Make, derivation: str) -> Handout:
    """A handout whose first check is derived like this."""
    return make(results=(replace(RESULTS[0], derivation=derivation), *RESULTS[1:]))


def test_a_formula_is_set_in_html(make: Make) -> None:
    """As MathML, in a line of the table."""
    nb = prepare(derived(make, r"By the chain rule, $\frac{dy}{dx} = 2x$."), "en")
    page = str(HandoutHTMLExporter().from_notebook_node(nb)[0])
    assert 'By the chain rule, <span class="whole"><math' in page
    assert "<mfrac>" in page


def test_a_formula_is_set_in_the_pdf(make: Make) -> None:
    """As Typst's, in both languages."""
    nb = prepare(derived(make, r"By $\sum_i |x_i|$, of `x`."), "zh")
    made = pypdf.PdfReader(io.BytesIO(HandoutPDFExporter().from_notebook_node(nb)[0]))
    words = "".join(page.extract_text() for page in made.pages)
    assert "∑" in words
    assert "sum" not in words


def test_a_formula_stays_one_in_the_notebook(make: Make) -> None:
    """A bar in it or in code does not end the cell of the table."""
    nb = notebook.lesson_notebook(prepare(derived(make, "By $|x|$ of `a|b` | c."), "en"))
    table = nbformat.from_dict(nb).cells[-1].source
    assert r"By $\vert x\vert$ of `a\|b` \| c. |" in table


def test_a_formula_that_cannot_be_set_is_found_early(tmp_path: Path) -> None:
    """`invoke lint` names the function of the oracle."""
    script = tmp_path / "lessons" / "01_a.py"
    oracle = script.parent / "expected" / script.name
    oracle.parent.mkdir(parents=True)
    oracle.write_text('def f():\n    r"""By $x$ and $\\unheard x$."""\n')
    [[fault]] = check_prose.faults([(script, [])])
    assert fault.startswith(r"lessons/expected/01_a.py:1: the formula \unheard x can't be set")
