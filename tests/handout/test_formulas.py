"""Formulas mean the same in HTML and in PDF, or are refused by name."""

import functools
from pathlib import Path

import pytest

from ci.handout import markdown, pdf
from ci.handout.formulas import REFUSED, refusal
from tests.handout import formula_meaning

# Each command in a formula that uses it, one a line.
FORMULAS = Path(__file__).with_name("formulas.txt").read_text("utf-8").splitlines()


@functools.cache
def meanings() -> dict[str, tuple[str, str]]:
    """What each formula that is not refused means, in HTML and in PDF."""
    wanted = [("DisplayMath", tex) for tex in FORMULAS if not refusal(tex)]
    in_html = markdown.set_formulas(wanted, "html")
    in_typst = markdown.set_formulas(wanted, "typst")
    known = [formula for formula in wanted if in_html[formula] and in_typst[formula]]
    paper = formula_meaning.of_typst([in_typst[formula] for formula in known], pdf.STYLE)
    return {
        formula[1]: (
            formula_meaning.of_mathml(in_html[formula]),
            formula_meaning.with_tables(meaning),
        )
        for formula, meaning in zip(known, paper, strict=True)
    }


def test_there_are_many() -> None:
    """Most of what a course of mathematics needs is among them, and is not refused."""
    assert len(FORMULAS) >= 300
    assert len(meanings()) >= 300


def test_a_formula_means_the_same_in_html_and_in_pdf() -> None:
    """All that are not refused by name before anything runs."""
    assert {tex: pair for tex, pair in meanings().items() if len({*pair}) > 1} == {}


@pytest.mark.parametrize(("tex", "letter"), [(r"\mathbf{x}", "𝐱"), (r"\boldsymbol{W}", "𝑾")])
def test_bold_letters_are_upright_in_html_only_as_in_tex(tex: str, letter: str) -> None:
    formula = ("InlineMath", tex)
    assert f">{letter}<" in markdown.set_formulas([formula], "html")[formula]


# https://github.com/jgm/pandoc/issues/11667 (\hline was dropped)
@pytest.mark.parametrize(
    ("tex", "meaning"),
    [
        (r"A = \begin{matrix}1&2\\3&4\end{matrix}", "A=[1⇥2↵3⇥4]"),
        (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "|[1⇥2↵3⇥4]|"),
        (r"\begin{Vmatrix}1&2\\3&4\end{Vmatrix}", "‖[1⇥2↵3⇥4]‖"),
        (r"\llbracket x\rrbracket", "⟦x⟧"),
        (r"a\!b\;c", "ab␣0.2c"),
        (r"x \tag{1}", "x␣2.0(1)"),
        (r"x \label{a}", "x"),
        (r"x \circleddash y", "x⊝y"),
        (r"\left\{\begin{aligned}a&=b\\c&=d\end{aligned}\right.", "{[a⇥=b↵c⇥=d]"),
    ],
)
def test_what_was_lost_has_its_meaning(tex: str, meaning: str) -> None:
    """These were set as something else, or refused with Typst's own words."""
    assert {*meanings()[tex]} == {meaning}


# https://github.com/jgm/pandoc/issues/11667 (a line of a table)
@pytest.mark.parametrize("tex", [rf"\{name}{{x}}{{y}}" for name in REFUSED if name.isalpha()])
def test_what_differs_is_refused_by_name(tex: str) -> None:
    """The message names the command."""
    assert refusal(tex).startswith(f"{tex.partition('{')[0]} is not the same in HTML and PDF: ")


@pytest.mark.parametrize("columns", ["c|c", "|cc", "p{2cm}"])
def test_lines_and_widths_of_a_table_are_refused(columns: str) -> None:
    """Neither format has them."""
    assert "columns" in refusal(rf"\begin{{array}}{{{columns}}}1&2\end{{array}}")
