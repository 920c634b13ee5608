"""The handouts in a real browser: what they load, run, say, and how they are used by keyboard.

Pictures of the pages, at a phone's and a desk's width in both schemes, are left in the folder that
pytest gives (`--basetemp` chooses it), to be looked at.
"""

import copy
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ci.handout import handout, index
from ci.handout.exporters import HandoutHTMLExporter
from ci.handout.handout import Handout, provenance
from ci.judge import verdicts
from ci.judge.outcome import Outcome, Result
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.plan import planner
from tests.conftest import ROOT, executions, missing

REAL = "03_autograd"
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
SCHEMES = ("light", "dark")
COURSE_PAGES = ["small", pytest.param("real", marks=pytest.mark.kernel)]

LESSON = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown] lang="en"
# # Slopes <script>alert("title")</script> & <b>more</b>
#
# A sentence, $\\sqrt{x^2} = |x|$, and a table.
#
# | a | b | c | a very long heading | another very long heading |
# |---|--:|---|---|---|
# | 1 | $x_2$ | three | four | five |
#
# ```bash
# pip install something
# ```
# %% [markdown] lang="zh"
# # 斜率 <script>alert("title")</script>
#
# 一句话，$\\sqrt{x^2} = |x|$。
# %% tags=["parameters"]
size: int = 4  # a comment that is so long that it has no room at all on the screen of a phone
# %% [markdown] lang="en"
# ## One `slope`
# $$\\frac{\\partial y}{\\partial x} = a + b + c + d + e + f + g + h + i + j + k + l + m + n + o$$
# %% [markdown] lang="zh"
# ## 一个 `slope`
# 文字。
# %% check="slope"
if size:
    slope = 2 * size
slope
# %% tags=["figure"]
draw()
# %% [markdown] lang="en"
# **Figure.** A line of slope $n$. It rises.
# %% [markdown] lang="zh"
# **图**。一条斜率为 $n$ 的直线。它上升。
# %% [markdown] lang="en"
# ## Hostile things
# Words. ![remote](http://example.org/a.png) <img src=x onerror=alert(1)>
# %% [markdown] lang="zh"
# ## 敌意
# 文字。
# %%
hostile()
"""

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="300" height="100" onload="alert('svg')">
<script>alert("svg")</script><image href="http://example.org/b.png"/>
<path d="M0 100 L300 0" stroke="black"/></svg>"""

ROW = "<tr>" + "".join(f"<td>{number}</td>" for number in range(60)) + "</tr>"
HOSTILE = [
    '<script>alert(1)</script><script src="http://example.org/c.js"></script>',
    '<img src="x" onerror="alert(2)"><img src="http://example.org/d.png"><p onclick="alert(3)">',
    '<a href="javascript:alert(4)" onmouseover="alert(5)">a link</a>',
    '<meta http-equiv="refresh" content="0; url=http://example.org/e">',
    '<iframe src="http://example.org/f"></iframe><object data="http://example.org/g"></object>',
    '<style>@import "http://example.org/h.css"; body { display: none }</style>',
    '<link rel="stylesheet" href="http://example.org/i.css"><base href="http://example.org/">',
    '<svg onload="alert(6)"><script>alert(7)</script></svg><math><mi xlink:href="javascript:1">',
    '<form action="http://example.org/j"><input autofocus onfocus="alert(8)"></form>',
    "</section></main></body></html><h1>not a heading</h1><!-- neighbours -->",
    f"<table><thead><tr><th></th><th>a</th></tr></thead>{ROW * 40}</table>",
]
TEXTS = [
    "</code></pre><script>alert(9)</script>",
    "x" * 10_000,
    "a\x00b\x07\x1b[31mred\x1b[0m\x1b]0;title\x07\u202e right to left \u2066",
    "עברית العربية 🦙 👩‍👩‍👧 한국어 ﷽",
    "<!-- end of neighbours --> <!-- neighbours -->",
]


def displayed(kind: str, content: str) -> NotebookNode:
    """An output that displays `content`."""
    return new_output("display_data", {kind: content})


def executed(lesson: Lesson) -> NotebookNode:
    """The lesson above, as if it had run."""
    notebook = copy.deepcopy(lesson.notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    code[1].outputs = [new_output("execute_result", {"text/plain": "8"}, execution_count=2)]
    code[2].outputs = [displayed("image/svg+xml", SVG)]
    code[3].outputs = [displayed("text/html", markup) for markup in HOSTILE]
    code[3].outputs += [new_output("stream", text=text) for text in TEXTS]
    code[3].outputs += [
        displayed("text/markdown", "<script>alert(10)</script> [a](javascript:alert(11))"),
        displayed("application/javascript", "alert(12)"),
        displayed("image/svg+xml", SVG),
    ]
    return notebook


def publish_small(folder: Path) -> Path:
    """Three lessons of the hostile kind, as HTML alone: the course page's folder."""
    entries = []
    for name in ("01_before", "02_small", "03_after"):
        path = folder / "lessons" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(LESSON, "utf-8")
        lesson = reader.read(path)
        odd = Result(lesson.checks[0], "verified", shown="<script>", expected="8", margin=0.5)
        run = planner.Run(lesson, lesson.defaults)
        environment = {"machine": "</dd><script>alert(13)</script>"}
        entries.append(
            Outcome(run, "verified", (odd,), notebook=executed(lesson), environment=environment)
        )
    return write(entries, folder / "page")


def write(outcomes: list[Outcome], folder: Path) -> Path:
    """The HTML pages of a course, and its index."""
    entries = [index.entry(outcome) for outcome in outcomes]
    for outcome, language in itertools.product(outcomes, reader.LANGUAGES):
        path = folder / language / f"{outcome.run.lesson.name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        prepared = handout.prepare(Handout(outcome, provenance(outcome)), language)
        path.write_text(HandoutHTMLExporter().from_notebook_node(prepared)[0], "utf-8")
    index.connect(entries, folder)
    for name, html in index.course(entries).items():
        (folder / name).write_text(html, "utf-8")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the small lessons above."""
    return publish_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a lesson of the course, executed here."""
    folder = tmp_path_factory.mktemp("real")
    lesson = reader.read(ROOT / "lessons" / f"{REAL}.py")
    runs = planner.runs([lesson], [], [])
    (execution,) = executions(runs, folder / "runs")
    return write([verdicts.judge(execution, oracle.load(lesson))], folder / "page")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = shutil.which("chromium")
    if not path:
        missing("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Watch:
    """What a page did that a handout must not do."""

    def __init__(self, context: BrowserContext) -> None:
        self.seen: list[str] = []
        context.on("request", lambda request: self._load(request.url))
        context.on("dialog", lambda dialog: self._dialog(dialog))
        context.on("console", lambda message: self.seen.append(f"console: {message.text}"))
        context.on("weberror", lambda error: self.seen.append(f"error: {error.error}"))
        self.pages: list[str] = []

    def _load(self, url: str) -> None:
        self.pages += [url] if url.startswith("file:") else []
        if not url.startswith(("file:", "data:")):
            self.seen.append(f"loads {url}")

    def _dialog(self, dialog: Any) -> None:
        self.seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A desk's window that has no network."""
    opened = browser.new_context(viewport=DESK, offline=True)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab, of which the test fails if it does what a handout must not do."""
    watch = Watch(context)
    yield context.new_page()
    assert watch.seen == []


def pages(folder: Path) -> list[Path]:
    """The lesson's page in both languages, and the index."""
    return [
        *(path for path in sorted(folder.glob("*/*.html")) if path.stem in ("02_small", REAL)),
        *sorted(folder.glob("index*.html")),
    ]


# What a page loads and runs


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


# For everyone


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


# Getting about


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


# Copying


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
