"""Pages of a hostile lesson and of a real one, and a browser that opens them.

Pictures of the pages, at a phone's and a desk's width in both schemes, are left in the folder that
pytest gives (`--basetemp` chooses it), to be looked at.
"""

import copy
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ci.handout import handout, index
from ci.handout.exporters import HandoutHTMLExporter
from ci.handout.handout import Handout, provenance
from ci.judge import verdicts
from ci.judge.outcome import Outcome, Result
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.plan import planner
from tests.conftest import ROOT, executions
from tests.machine_parts import missing

REAL = "03_autograd"
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
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
    for name, html in index.pages(entries).items():
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
