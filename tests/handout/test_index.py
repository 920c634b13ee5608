"""The course page and the summary of a sweep: their content and their links."""

from ci.handout import index
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
    """Both titles, status, number of checks, six files and the archive."""
    html = index.course([ENTRY])
    for name in ("en/03_gradients.html", "zh/03_gradients.pdf", "zh/03_gradients.ipynb"):
        assert f'href="{name}"' in html
    for text in ("梯度", "✓ verified", "3 values verified", "cpu (a small one)", "handouts.zip"):
        assert text in html


def test_the_course_page_escapes_its_input() -> None:
    """A title is text, and the page loads and runs nothing."""
    html = index.course([ENTRY], [{"en": "<script>", "zh": "注意"}])
    assert "Gradients &lt;b&gt;" in html
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_a_sweep_names_its_runs() -> None:
    """Its page shows the parameters of each run, and why one differs."""
    run = {**ENTRY, "label": "size=2", "folder": "03/a1", "status": "differs", "reason": "by 1"}
    html = index.summary([run])
    assert "size=2" in html
    assert "✗ differs" in html
    assert "by 1" in html
    assert "handouts.zip" not in html


def test_a_sweep_with_handouts_links_to_them() -> None:
    """They are in the folder of their run."""
    run = {**ENTRY, "label": "size=2", "folder": "03/a1", "reason": ""}
    assert 'href="03/a1/en/03_gradients.html"' in index.summary([run], handouts=True)
