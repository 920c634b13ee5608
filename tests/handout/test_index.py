"""The course page and the summary of a sweep: their content and their links."""

import pytest

from ci.handout import html, index
from tests.handout.conftest import FACTS

ENTRY = {
    "name": "03_gradients",
    "titles": {"en": "Gradients <b>", "zh": "梯度"},
    "status": "verified",
    "checks": 3,
    "summaries": {"en": "3 values verified", "zh": "已核对 3 个值"},
    "facts": FACTS,
}


def test_the_course_page_links_to_each_handout() -> None:
    """In each language: title, files, archive, and how they were verified."""
    pages = index.pages([ENTRY])
    for language, file, title in (
        ("en", "index.html", "Gradients"),
        ("zh", "index.zh.html", "梯度"),
    ):
        for kind in ("html", "pdf", "ipynb"):
            assert f'href="{language}/03_gradients.{kind}"' in pages[file]
        for text in (title, "cpu (a small one)", "handouts.zip"):
            assert text in pages[file]
    assert "✓ 3 values verified" in pages["index.html"]
    assert "✓ 已核对 3 个值" in pages["index.zh.html"]
    assert 'href="index.zh.html"' in pages["index.html"]
    assert 'href="index.html"' in pages["index.zh.html"]


@pytest.mark.parametrize(
    ("content", "is_drawing"), [("<svg/>", True), ("<svg><image/></svg>", False)]
)
def test_only_a_drawing_gets_the_colours_of_the_dark_page(content: str, is_drawing: bool) -> None:
    """A photograph keeps its own, on the course page as in the lesson."""
    entry = {**ENTRY, "picture": html.data_url(content, "image/svg+xml")}
    assert ('class="drawing"' in index.pages([entry])["index.html"]) == is_drawing


def test_a_lesson_in_one_language_is_on_each_page() -> None:
    """The page leads to it in the language that it has; a course in one language has one page."""
    chinese = {**ENTRY, "name": "04_zh", "titles": {"zh": "另一课"}}
    page = index.pages([ENTRY, chinese])["index.html"]
    assert '<a href="zh/04_zh.html"><span lang="zh-CN">另一课</span></a>' in page
    assert "en/04_zh" not in page
    alone = index.pages([chinese])
    assert alone["index.html"] == alone["index.zh.html"]
    assert 'lang="en"' not in alone["index.html"]


def test_the_course_page_escapes_its_input() -> None:
    """A title is text, and the page loads and runs nothing."""
    html = index.pages([ENTRY], [{"en": "<script>", "zh": "注意"}])["index.html"]
    assert "Gradients &lt;b&gt;" in html
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_a_sweep_names_its_runs() -> None:
    """Its page shows the parameters of each run, and why one differs."""
    run = {**ENTRY, "label": "size=2", "folder": "03/a1", "status": "differs", "reason": "by 1"}
    html = index.pages([run], sweep=True, handouts=False)["index.html"]
    assert "size=2" in html
    assert "✗ differs" in html
    assert "by 1" in html
    assert "handouts.zip" not in html


def test_a_sweep_with_handouts_links_to_them() -> None:
    """They are in the folder of their run."""
    run = {**ENTRY, "label": "size=2", "folder": "03/a1", "reason": ""}
    assert 'href="03/a1/en/03_gradients.html"' in index.pages([run], sweep=True)["index.html"]


def test_a_lesson_names_those_that_it_builds_on() -> None:
    """Links to their pages; a lesson that is not on the page is not named."""
    later = {**ENTRY, "name": "04_more", "prerequisites": ["03_gradients", "02_gone"]}
    pages = index.pages([ENTRY, later])
    link = '<a href="en/03_gradients.html"><span>Gradients &lt;b&gt;</span></a>'
    assert f'<p class="prerequisites">Builds on {link}</p>' in pages["index.html"]
    assert pages["index.zh.html"].count('class="prerequisites">先修：') == 1
    assert "02_gone" not in pages["index.html"]
