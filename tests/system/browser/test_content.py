"""What a page loads and runs, and that its content fits."""

from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page

from ci.handout.exporters import HandoutHTMLExporter
from tests.system.browser.conftest import (
    COURSE_PAGES,
    DESK,
    PHONE,
    SVG,
    Watch,
    displayed,
    pages,
)


@pytest.mark.parametrize("course_page", COURSE_PAGES)
def test_a_page_loads_nothing_but_itself(
    browser: Browser, course_page: str, request: pytest.FixtureRequest
) -> None:
    """No request leaves the file; nothing is reported, no policy is violated."""
    for path in pages(request.getfixturevalue(course_page)):
        context = browser.new_context(viewport=DESK)
        watch = Watch(context)
        tab = context.new_page()
        tab.goto(path.as_uri())
        tab.wait_for_timeout(300)
        assert watch.seen == []
        assert watch.pages == [path.as_uri()]
        context.close()


def test_hostile_outputs_neither_run_nor_break_the_page(page: Page, small: Path) -> None:
    """All of them are dropped, or are text; what follows them is there, on the page's width."""
    url = (small / "en" / "02_small.html").as_uri()
    page.goto(url)
    for link in page.get_by_text("a link").all():
        link.hover()
        link.click(timeout=1000)
    page.wait_for_timeout(300)
    assert page.url == url
    assert page.locator("script:not([type='application/json'])").count() == 1
    assert page.locator("h1").all_inner_texts() == ['Slopes <script>alert("title")</script> & more']
    assert page.title() == 'Slopes <script>alert("title")</script> & more'
    assert page.locator("main #environment").is_visible()
    assert page.locator(".neighbours").count() == 1
    assert page.locator("svg, iframe, object, form, input, link[rel=stylesheet]").count() == 0


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.kernel
def test_nothing_is_wider_than_the_page(page: Page, small: Path, real: Path, size: Any) -> None:
    """Long lines wrap, tables scroll by themselves."""
    page.set_viewport_size(size)
    for path in [*pages(small), *pages(real)]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        for pre in page.locator("pre").all():
            assert pre.evaluate("pre => pre.scrollWidth <= pre.clientWidth")


@pytest.mark.kernel
def test_a_page_is_small(real: Path) -> None:
    """Less than 300 KB without its figures."""
    for path in pages(real)[:2]:
        parts = path.read_text("utf-8").split('src="data:image')
        text = parts[0] + "".join(part.partition('"')[2] for part in parts[1:])
        assert len(text.encode()) < 300_000


@pytest.mark.kernel
def test_formulas_have_their_font(page: Page, real: Path) -> None:
    """It is in the page, and is used."""
    page.goto((real / "en" / "03_autograd.html").as_uri())
    assert page.evaluate("document.fonts.ready.then(f => [...f].map(face => face.status))") == [
        "loaded"
    ]


def test_a_wide_figure_can_be_read_on_a_phone(page: Page, tmp_path: Path) -> None:
    """It scrolls by itself; on a desk it fits, and a small one is never enlarged."""
    cells = [
        new_code_cell("", outputs=[displayed("image/svg+xml", SVG.replace('"300"', width))])
        for width in ('"504pt"', '"300pt"')
    ]
    made = HandoutHTMLExporter().from_notebook_node(new_notebook(cells=cells))[0]
    (tmp_path / "page.html").write_text(made, "utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    wide, small = page.get_by_role("img").all()
    frame = page.locator(".wide")
    assert frame.count() == 1
    assert frame.evaluate("e => e.scrollWidth <= e.clientWidth")
    page.set_viewport_size(PHONE)
    assert frame.evaluate("e => e.scrollWidth > e.clientWidth")
    assert wide.evaluate("e => e.getBoundingClientRect().width") > PHONE["width"]
    assert small.evaluate("e => e.getBoundingClientRect().width") <= PHONE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
