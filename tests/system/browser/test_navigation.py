"""Contents, links, the other language, and buttons that copy code."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, Page

from tests.system.browser.conftest import DESK, PHONE, pages


def test_the_contents_lead_to_each_section(page: Page, small: Path) -> None:
    """Beside the text on a desk, with the other lessons; in a bar at the top of a phone."""
    page.goto((small / "en" / "02_small.html").as_uri())
    contents = page.get_by_role("navigation", name="Contents")
    title = 'Slopes <script>alert("title")</script> & more'
    assert contents.get_by_role("link").all_inner_texts() == [
        *("中文", title, title, "One slope", "Hostile things", "Checks", "Environment", title)
    ]
    contents.get_by_role("link", name="Hostile things").click()
    assert page.get_by_role("heading", name="Hostile things").is_visible()
    assert page.url.endswith("#hostile-things")
    assert page.evaluate("scrollY") > 100
    assert contents.locator("[aria-current=location]").inner_text() == "Hostile things"
    page.set_viewport_size(PHONE)
    assert not contents.get_by_role("link", name="Checks").is_visible()
    contents.get_by_text("Contents").click()
    assert contents.get_by_role("link", name="中文").is_visible()
    contents.get_by_role("link", name="Checks").click()
    page.wait_for_timeout(200)
    assert page.get_by_role("heading", name="Checks").is_visible()
    assert not contents.get_by_role("link", name="Checks").is_visible()
    bar = contents.bounding_box()
    assert bar is not None
    assert bar["y"] == 0


def test_each_link_leads_somewhere(page: Page, small: Path) -> None:
    """Each link within the course is to a page, and a place on it, that is there."""
    for path in pages(small):
        page.goto(path.as_uri())
        links = page.locator("a[href]:not([download])").evaluate_all("all => all.map(a => a.href)")
        for link in {link for link in links if link.startswith("file:")}:
            address, _, place = unquote(link).partition("#")
            target = Path(address.removeprefix("file://"))
            assert target.exists(), link
            assert not place or f'id="{place}"' in target.read_text("utf-8"), link


@pytest.mark.kernel
def test_the_other_language_is_at_the_same_place(page: Page, real: Path) -> None:
    """The switch beside the text keeps the place where the reader is, there and back."""
    page.goto((real / "en" / "03_autograd.html").as_uri())
    section = page.locator("section:has(h2)").nth(2)
    section.evaluate("section => section.scrollIntoView()")
    here = section.get_attribute("id")
    assert here
    page.locator(".contents a[hreflang]").click()
    page.wait_for_url("**/zh/03_autograd.html#cell-*")
    place = page.url.partition("#")[2]
    assert place == here.replace("-en", "-zh")
    top = page.locator(f"#{place}").evaluate("e => e.getBoundingClientRect().top")
    assert -10 <= top <= DESK["height"] / 2
    page.locator(".contents a[hreflang]").click()
    page.wait_for_url("**/en/03_autograd.html#cell-*")


def test_at_the_top_the_other_language_begins_at_its_top(page: Page, small: Path) -> None:
    """Who has not scrolled yet gets the other page's beginning."""
    page.goto((small / "en" / "02_small.html").as_uri())
    page.locator(".contents a[hreflang]").click()
    page.wait_for_url("**/zh/02_small.html")


def test_without_script_a_heading_leads_to_its_translation(browser: Browser, small: Path) -> None:
    """All is there to read, and no button that would do nothing."""
    context = browser.new_context(viewport=DESK, java_script_enabled=False)
    tab = context.new_page()
    tab.goto((small / "en" / "02_small.html").as_uri())
    assert tab.get_by_role("button").count() == 0
    tab.get_by_role("link", name="本节的中文版").nth(1).click()
    tab.wait_for_url("**/zh/02_small.html#cell-*-zh")
    assert tab.get_by_role("heading", name="敌意").is_visible()
    context.close()


def test_a_lesson_leads_to_its_neighbours(page: Page, small: Path) -> None:
    """By their titles, in its own language; the first has none before it."""
    page.goto((small / "zh" / "01_before.html").as_uri())
    links = page.get_by_role("navigation", name="其他课").get_by_role("link")
    assert links.count() == 1
    assert "下一课" in links.inner_text()
    links.click()
    page.wait_for_url("**/zh/02_small.html")
    assert links.count() == 2


@pytest.mark.parametrize("allowed", [True, False], ids=["clipboard", "no clipboard"])
def test_code_can_be_copied_by_keyboard(browser: Browser, small: Path, allowed: bool) -> None:
    """The button has a name in the page's language, says that it has copied, and did."""
    context = browser.new_context(viewport=DESK, offline=True)
    if allowed:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
    else:
        context.add_init_script("delete Navigator.prototype.clipboard")
    tab = context.new_page()
    tab.goto((small / "zh" / "02_small.html").as_uri())
    button = tab.get_by_role("button", name="复制代码 2")
    button.focus()
    tab.keyboard.press("Enter")
    tab.get_by_role("status").get_by_text("已复制").wait_for(state="attached")
    assert button.evaluate("e => e === document.activeElement")
    tab.evaluate("document.body.prepend(document.createElement('textarea'))")
    tab.locator("textarea").focus()
    tab.keyboard.press("Control+V")
    pasted = tab.locator("textarea").input_value()
    assert pasted == "if size:\n    slope = 2 * size\nslope"
    context.close()


def test_code_in_prose_can_be_copied(page: Page, small: Path) -> None:
    """Commands to type have a button as well."""
    page.goto((small / "en" / "02_small.html").as_uri())
    assert page.get_by_role("button", name="Copy code", exact=True).count() == 1
