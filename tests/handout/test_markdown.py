"""Prose and formulas through pandoc: what each becomes, and what is refused."""

from html import unescape

import pypandoc
import pytest

from ci.errors import CourseError, MachineError
from ci.handout import markdown, pdf

FORMULAS = [
    r"\odot",
    r"a \ominus b \otimes c",
    r"A \cap B \bigcap_i C_i",
    r"\frac{\partial y}{\partial x_i} = 4 x_i",
    r"\mathbf{v}^\top J",
    r"\begin{align} a &= b \\ c &= d \end{align}",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"f(x) = \begin{cases} 1 & x > 0 \\ 0 & \text{否则} \end{cases}",
    r"\operatorname{softmax}(x), \; \lVert x \rVert_2, \; \bar z, \; \sqrt{2}",
]


def one(text: str, target: markdown.Target) -> str:
    """A single text, rendered."""
    return markdown.render([text], target)[text]


def test_a_formula_becomes_mathml() -> None:
    """HTML gets MathML, which needs no script."""
    assert '<math display="inline"' in one("let $x^2$ be", "html")


def test_a_display_formula_stays_one() -> None:
    """Double dollars set a formula on a line of its own, in both formats."""
    assert '<math display="block"' in one("$$x^2$$", "html")
    assert one("$$x^2$$", "typst") == '#math.equation(block: true, alt: "x^2", $ x^2 $.body);'


def test_a_formula_can_be_heard_on_paper() -> None:
    """Its TeX goes with it, including quotes and backslashes."""
    assert r'alt: "\\text{\"a\"}"' in one(r"""$\text{"a"}$""", "typst")


def test_markdown_becomes_words_for_a_screen_reader() -> None:
    """What a screen reader says of a figure is its caption, without marks, in one line."""
    caption = "**Figure.** The slope of\n`x`, see [here](https://x.y), is $x^2$."
    assert markdown.spoken([caption])[caption] == "Figure. The slope of x, see here, is x²."


@pytest.mark.parametrize("formula", FORMULAS)
def test_typst_takes_what_pandoc_writes(formula: str) -> None:
    """What a course of this kind needs is set by Typst, the names it has dropped too."""
    source = one(f"$${formula}$$", "typst")
    assert pdf.typeset(f'#import "handout.typ" as sheet\n#show: sheet.formulas-in\n{source}')


def test_a_renamed_symbol_in_a_quoted_text_stays() -> None:
    """Only symbols are renamed for Typst, not the words in a formula."""
    assert '"sect dot.circle"' in one(r"$\text{sect dot.circle}$", "typst")


def test_prose_that_looks_like_a_symbol_stays() -> None:
    """Only formulas are mended for Typst, not prose and code."""
    assert one("sect and `dot.circle`", "typst") == "sect and `dot.circle`"


@pytest.mark.parametrize("target", ["html", "typst"])
def test_an_unknown_formula_is_an_error_that_shows_it(target: markdown.Target) -> None:
    """pandoc only warns of TeX it does not know, and sets its source; we refuse it by name."""
    with pytest.raises(CourseError, match=r"\\unheard"):
        one(r"see $\unheard{x}$", target)


def test_an_unclosed_fence_does_not_reach_the_next_text() -> None:
    """Each text is read as a file of its own."""
    fence, after = "```\nx = 1", "**after**"
    assert markdown.render([fence, after], "html")[after] == "<p><strong>after</strong></p>"


def test_footnotes_stay_with_their_text() -> None:
    """A footnote of the same name in two texts is two footnotes, each below its own."""
    first, second = "a[^1]\n\n[^1]: one", "b[^1]\n\n[^1]: two"
    rendered = markdown.render([first, second], "html")
    assert "one" in rendered[first]
    assert "two" not in rendered[first]
    assert "two" in rendered[second]


def test_raw_html_is_text() -> None:
    """Markup in a lesson is shown, never obeyed."""
    html = one("a <b onclick='x()'>b</b>\n\n<script>alert(1)</script>", "html")
    assert "<script" not in html
    assert "<b " not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_typst_markup_in_prose_is_text() -> None:
    """What means something to Typst means nothing in Markdown, and stays so."""
    hostile = "#panic() $5 @ref <label> // no /* no */ a--b = c"
    source = one(hostile, "typst")
    assert r"\#panic()" in source
    assert pdf.typeset(source)


@pytest.mark.parametrize("target", ["html", "typst"])
def test_pictures_give_their_words(target: markdown.Target) -> None:
    """Nothing is loaded from elsewhere: of a picture in prose its words stay."""
    rendered = one("see ![a cat](http://example.org/cat.png)", target)
    assert "a cat" in rendered
    assert "example.org" not in rendered


def test_only_links_to_the_web_stay() -> None:
    """A script or a file behind a link is dropped, its words stay."""
    text = "[w](https://pytorch.org) [s](javascript:alert(1)) [f](/etc/passwd)"
    html = one(text, "html")
    assert '<a href="https://pytorch.org">w</a>' in html
    assert "javascript" not in html
    assert "passwd" not in html


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("中文\n换行", "中文换行"),
        ("中文，\nPyTorch", "中文，PyTorch"),
        ("中文\nPyTorch", "中文 PyTorch"),
        ("two\nwords", "two words"),
    ],
)
def test_line_breaks_beside_chinese_follow_its_rules(source: str, shown: str) -> None:
    """No space between Chinese characters or beside their punctuation; one beside Latin words."""
    assert one(source, "typst") == shown


def test_headings_have_no_names_of_their_own() -> None:
    """A heading's name would meet another's in the same document; cells are the anchors."""
    assert one("## Same", "html") == "<h2>Same</h2>"
    assert one("## Same", "typst") == "== Same"


def test_control_characters_are_taken_out() -> None:
    """Colours, bells and the separator of texts never reach a document."""
    assert markdown.plain("\x1b[31mred\x1b[0m\x07 a\x1eb\tc\n") == "red ab\tc\n"
    assert one("a\x1eb", "html") == "<p>ab</p>"


def test_nothing_to_render_is_nothing() -> None:
    """A document without prose is no error."""
    assert markdown.render([], "html") == {}


def test_the_formulas_and_words_of_a_text_are_told_apart() -> None:
    """Code is neither a formula nor a word."""
    [document] = markdown.read(["say $x$ and `$y$` then\n\n$$z$$"])
    assert [tex for _, tex in markdown.formulas(document)] == ["x", "z"]
    assert list(markdown.words(document)) == ["say", "and", "then"]


def test_a_missing_pandoc_is_the_machine_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it, although the library's error has several lines."""

    def missing() -> str:
        raise OSError("No pandoc was found.\nSee the documentation.")

    monkeypatch.setattr(pypandoc, "get_pandoc_path", missing)
    with pytest.raises(MachineError, match=r"^pandoc: No pandoc was found\.: reinstall the pack"):
        markdown.read(["a text that no other test reads"])


@pytest.fixture
def no_pandoc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each start of pandoc fails."""

    def fail(*_: object, **__: object) -> str:
        raise AssertionError("pandoc was started")

    monkeypatch.setattr(markdown, "_pandoc", fail)


def test_what_another_process_rendered_needs_no_pandoc(no_pandoc: None) -> None:
    """As the processes that make handouts get it, in one format."""
    markdown.adopt({"html": {"only adopted": "<p>known</p>"}})
    assert markdown.render(["only adopted"], "html") == {"only adopted": "<p>known</p>"}
    with pytest.raises(AssertionError):
        markdown.render(["only adopted"], "typst")


def test_a_text_is_read_once_for_all_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading takes longer than writing a format."""
    markdown.render(["read *once* only"], "html")
    monkeypatch.setattr(markdown, "_parse", None)
    assert markdown.render(["read *once* only"], "typst")
    assert markdown.spoken(["read *once* only"]) == {"read *once* only": "read once only"}


@pytest.mark.parametrize("text", ["[0. 1. 2.], True", "f(x)[0]", r"\[1\] \(x\)"])
def test_escaped_text_is_no_formula(text: str) -> None:
    """A notebook of ours can be converted again: its check table shows arrays."""
    source = markdown.escape(text)
    assert unescape(markdown.render([source], "html")[source]).strip() == f"<p>{text}</p>"


def test_a_mark_stays_with_the_formula_before_it() -> None:
    """In HTML, where a line could break between them; the other formula has no mark."""
    html = one("Let $x$ be $y$。", "html")
    assert html.count('<span class="whole">') == 1
    assert html.endswith("</math>。</span></p>")
