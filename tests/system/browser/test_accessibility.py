"""The pages for everyone: axe, the keyboard, languages, headings."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.system.browser.conftest import (
    COURSE_PAGES,
    DESK,
    PHONE,
    pages,
)

SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("course_page", COURSE_PAGES)
def test_axe_finds_nothing(
    browser: Browser,
    size: Any,
    scheme: Any,
    course_page: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Every rule of axe-core, in both languages and on the index; a picture of each is left."""
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=size is PHONE)
    for path in pages(request.getfixturevalue(course_page)):
        tab = context.new_page()
        tab.goto(path.as_uri())
        tab.screenshot(path=tmp_path / f"{path.parent.name}-{path.stem}.png")
        found = Axe().run(tab)
        said = [(rule["id"], rule["nodes"][0]["html"]) for rule in found.response["violations"]]
        assert said == []
        tab.close()
    context.close()


def test_the_first_key_leads_to_the_text(page: Page, small: Path) -> None:
    """Tab shows the link that skips what is beside the text."""
    page.goto((small / "zh" / "02_small.html").as_uri())
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.inner_text() == "跳到正文"
    box = skip.bounding_box()
    assert box is not None
    assert box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "text"


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_keyboard_reaches_all_and_shows_where_it_is(page: Page, small: Path, size: Any) -> None:
    """Each link, button and scrolling part is in the order of Tab, visible, with an outline."""
    page.set_viewport_size(size)
    page.goto((small / "en" / "02_small.html").as_uri())
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        name, outlined, shown = page.evaluate(
            """() => {
              const element = document.activeElement, style = getComputedStyle(element);
              return [element.outerHTML, style.outlineStyle !== "none",
                element.checkVisibility({opacityProperty: true, visibilityProperty: true})];
            }"""
        )
        if name.startswith("<body"):
            break
        assert outlined, name
        assert shown, name
        reached.append(name)
    can = page.locator("a[href], button, summary, [tabindex='0']").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => e.outerHTML)"
    )
    marked = ' aria-current="location"'  # where the page is scrolled to, at each of these moments
    assert sorted(e.replace(marked, "") for e in reached) == sorted(
        e.replace(marked, "") for e in can
    )


def test_a_figure_says_what_it_is(page: Page, small: Path) -> None:
    """Its alternative text is the caption's first sentence; the caption is the figure's."""
    page.goto((small / "zh" / "02_small.html").as_uri())
    figure = page.get_by_role("figure")
    assert figure.get_by_role("img").get_attribute("alt") == "一条斜率为 n 的直线。"
    assert "它上升" in figure.locator("figcaption").inner_text()
    assert page.get_by_text("它上升").count() == 1


def test_each_passage_says_its_language(page: Page, small: Path) -> None:
    """The page's own, and that of links to the other one and of derivations."""
    page.goto((small / "zh" / "02_small.html").as_uri())
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.locator(".contents a[hreflang]").get_attribute("lang") == "en"
    assert page.locator(".checks tbody [lang=en]").count() == 1


@pytest.mark.kernel
def test_headings_are_in_order(page: Page, small: Path, real: Path) -> None:
    """One title, and no level is left out."""
    for path in [*pages(small), *pages(real)]:
        page.goto(path.as_uri())
        found = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
            "all => all.map(e => e.tagName)"
        )
        levels = [int(tag[1]) for tag in found]
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise([0, *levels]))
