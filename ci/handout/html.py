"""What an HTML handout has beside its cells: contents, link targets, a font for formulas, links to
its neighbours.

The HTML changed here is pandoc's own, in which nothing from a notebook is markup, so a pattern
finds each heading and table with certainty.
"""

import base64
import functools
import hashlib
import html
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nh3
from ipython_pygments_lexers import IPython3Lexer  # type: ignore[import-untyped]
from markupsafe import Markup, escape
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

from ci.handout.markdown import plain, visible
from ci.lesson.node import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = TEMPLATES / "html" / "handout.js"
FONT = Path(__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"

# A tick, as at a value that was verified.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%232a6b45'/%3E%3Cpath d='m3.5 8.5 3 3 6-7' "
    "fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E"
)

PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
HEADING = re.compile(r"(?s)<h([2-6])>(.*?)</h\1>")
TABLE = re.compile(r"(?s)<table.*?</table>")
EMPTY_HEAD = re.compile(r"<th\b[^>]*></th>")
MATH = re.compile(r"(?s)<math\b.*?</math>")
DISPLAY_MATH = re.compile(r'(?s)<math display="block"(.*?)</math>')
SILENT = re.compile(r"(?s)<annotation\b.*?</annotation>|<[^>]*>")
LINK = re.compile(r"</?a\b[^>]*>")
UNSTYLED = re.compile(r'<span class="(?:n|nn|p|o|w)">([^<]*)</span>')
REGION = re.compile(r"(?s)(<!-- (before|after|neighbours) -->).*?(<!-- end of \2 -->)")
SVG_WIDTH, WIDE_PT = re.compile(r'<svg\b[^>]*\swidth="(\d+(?:\.\d*)?)pt"'), 400
PARAGRAPH = re.compile(r"(?s)<p>(.*?)</p>")
PLACES = (
    "text",
    "checks",
    "environment",
    "unverified",
    "copy-status",
    "check-table",
)  # of each page

# The tags that the HTML of a result may use: tables and words, nothing that loads or runs.
HTML_TAGS = nh3.ALLOWED_TAGS - {
    *("area", "img", "map"),
    *("article", "aside", "footer", "header", "hgroup", "nav"),  # the page has its own
    *(f"h{level}" for level in range(1, 7)),
}
SCHEMES = {"http", "https", "mailto"}

# Browsers draw a variable of one letter with the italic letter of mathematics.
ITALIC = {
    unicodedata.normalize("NFKC", chr(code)): chr(code)
    for code in (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E)
}
# Browsers draw these though no text contains them: root signs, the minus for a hyphen, and bars.
DRAWN = "√−‾¯|‖"


@dataclass(frozen=True)
class Heading:
    """A heading of a cell. `level` is 2 or more; `markup` is the heading without links; `place` is
    its link target, made of its words, so that it stays when cells come and go."""

    level: int
    cell: str
    place: str
    markup: Markup


def contents(
    cells: Sequence[NotebookNode], prose: Mapping[str, str], checks: Iterable[str] = ()
) -> list[Heading]:
    """The headings below the title, in order. Their places are none of the page's other places."""
    used = {*PLACES, *(cell.id for cell in cells), *(f"check-{name}" for name in checks)}
    return [
        Heading(int(level), cell.id, _slug(heading, used), Markup(LINK.sub("", heading)))
        for cell in cells
        if cell.cell_type == "markdown"
        for level, heading in HEADING.findall(prose[cell.source])
    ]


def _slug(heading: str, used: set[str]) -> str:
    """The words of a heading as a link target that is not `used` yet."""
    words = re.sub(r"\W+", "-", html.unescape(SILENT.sub("", heading)).lower()).strip("-")
    name = words = words or "section"
    for number in itertools.count(2):
        if name not in used:
            break
        name = f"{words}-{number}"
    used.add(name)
    return name


def places(
    prose: str,
    cell: str,
    about: Mapping[str, Any],
    labels: Mapping[str, str],
    headings: Iterable[Heading],
) -> Markup:
    """The prose of a cell, with a target on each heading and links to it and to the other language;
    `headings` are those of the page."""
    own = (heading.place for heading in headings if heading.cell == cell)

    def heading(found: re.Match[str]) -> str:
        level, place = found[1], next(own)
        line = f'<h{level} id="{place}">{found[2]}</h{level}>'
        link = f'<a class="link" href="#{place}" aria-label="{labels["link"]}">#</a>'
        return f'<div class="heading">{line}{link}{_other_language(cell, about, labels)}</div>'

    return Markup(_scrollable(HEADING.sub(heading, prose), labels))


def _other_language(cell: str, about: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    if not about or not about["other"] or not cell.endswith(f"-{about['language']}"):
        return ""
    target = cell.removesuffix(about["language"]) + about["other"]
    return Markup('<a href="{0}#{1}" lang="{2}" hreflang="{2}" aria-label="{3}">{4}</a>').format(
        f"../{about['other']}/{about['name']}.html",
        target,
        about["other"],
        labels["section"],
        labels["other"],
    )


def _scrollable(markup: str, labels: Mapping[str, str]) -> str:
    """`markup` in which tables and long formulas scroll by themselves, with the keyboard too."""
    frame = f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(labels["table"])}">'
    markup = TABLE.sub(lambda found: f"{frame}{_without_empty_heads(found[0])}</div>", markup)
    return DISPLAY_MATH.sub(_focusable, markup)


def _focusable(formula: re.Match[str]) -> str:
    if len(SILENT.sub("", formula[0])) < 25:  # fits on any phone
        return formula[0]
    return f'<math display="block" tabindex="0"{formula[1]}</math>'


def clean(content: str) -> Markup:
    """The HTML of a result, reduced to tables and words."""
    return Markup(_without_empty_heads(nh3.clean(content, tags=HTML_TAGS, url_schemes=SCHEMES)))


def _without_empty_heads(table: str) -> str:
    """`table` with cells in the place of empty heads, which head nothing."""
    return EMPTY_HEAD.sub("<td></td>", table)


def alternative(caption: str) -> str:
    """The description of a figure: the first sentence of its caption."""
    without = re.sub(r"(?s)<strong>.*?</strong>[.。]?", "", caption, count=1)
    text = " ".join(html.unescape(SILENT.sub("", without)).split())
    return re.split(r"(?<=[.。])(?:\s|(?<=。))", text, maxsplit=1)[0]


def inline(prose: str) -> Markup:
    """The markup of one paragraph, to be a part of a line."""
    return Markup(prose.removeprefix("<p>").removesuffix("</p>"))


def description(prose: str) -> str:
    """The first paragraph of a page, in words."""
    found = PARAGRAPH.search(prose)
    return " ".join(html.unescape(SILENT.sub("", found[1])).split()) if found else ""


@functools.lru_cache(maxsize=4096)
def code(source: str) -> Markup:
    """Highlighted Python, one element per line, so that a folded line is indented further."""
    source = visible(plain(source)).rstrip("\n")
    markup = highlight(source, IPython3Lexer(stripnl=False), HtmlFormatter(nowrap=True))
    lines = UNSTYLED.sub(r"\1", markup.rstrip("\n")).split("\n")
    return Markup("").join(map(_code_line, source.split("\n"), lines))


def failure(traceback: str, name: str) -> Markup:
    """A traceback in which the error itself, at its end, is marked."""
    lines = visible(plain(traceback)).split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(name)]
    first = starts[-1] if name and starts else len(lines)
    before = escape("".join(f"{line}\n" for line in lines[:first]))
    return before + Markup("<strong>{}</strong>").format("\n".join(lines[first:]))


def _code_line(line: str, markup: str) -> Markup:
    indent = len(line) - len(line.lstrip(" "))
    style = f' style="--i:{indent}"' if indent else ""
    return Markup(f'<span class="row"{style}>{markup}\n</span>')


@functools.cache
def script() -> Markup:
    """The script of the copy buttons; a page works without it as well."""
    return Markup(SCRIPT.read_text("utf-8").strip())


def is_wide(content: str) -> bool:
    """Whether a picture is an SVG whose text would be too small on a phone."""
    found = SVG_WIDTH.search(content)
    return found is not None and float(found[1]) > WIDE_PT


def is_drawing(content: str) -> bool:
    """Whether a picture is an SVG of lines and text alone, whose colours may be turned around."""
    return "<svg" in content and "<image" not in content


def is_url_of_drawing(url: str) -> bool:
    """Whether `url`, as from `data_url`, is a drawing."""
    kind, _, content = url.partition(";base64,")
    return kind.endswith("svg+xml") and is_drawing(base64.b64decode(content).decode())


def data_url(content: str, kind: str) -> str:
    """A picture as a URL; a script in an SVG never runs there."""
    return f"data:{kind};base64,{base64.b64encode(picture_bytes(kind, content)).decode()}"


def picture_bytes(kind: str, content: str) -> bytes:
    """The file of a picture in an output."""
    return content.encode() if kind == "image/svg+xml" else base64.b64decode(content)


@functools.cache
def policy() -> str:
    """The content security policy: a page may run its script, use styles and show its content."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def connect(page: str, links: Mapping[str, str]) -> str:
    """`page` with its links to other lessons replaced: `before` and `after` it in the contents, and
    its `neighbours` at its end."""
    return REGION.sub(lambda found: found[1] + links.get(found[2], "") + found[3], page)


def font_url(markup: Iterable[str]) -> str:
    """A data URL of a font for the formulas in `markup`; empty if there are none.

    With the reader's own fonts, roots may lack their signs and parentheses may not grow. The URL
    holds the characters of STIX Two Math that the page needs, some ten kilobytes.
    """
    formulas = [formula for text in markup for formula in MATH.findall(text)]
    characters = frozenset(html.unescape(SILENT.sub("", "".join(formulas)))) - frozenset("\n\t ")
    return _font_url(characters) if formulas else ""


@functools.cache
def _font_url(characters: frozenset[str]) -> str:
    from fontTools import subset  # takes half a second, so only for pages with formulas

    options = subset.Options()
    options.flavor = "woff2"
    options.hinting = False
    options.layout_features = []
    options.name_IDs = [0, 13, 14]  # its copyright and licence
    options.drop_tables += ["DSIG"]
    needed = characters | {ITALIC[c] for c in characters & ITALIC.keys()} | set(DRAWN)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=map(ord, needed))
    file = io.BytesIO()
    with subset.load_font(str(FONT), options) as font:
        subsetter.subset(font)
        subset.save_font(font, file, options)
    return f"data:font/woff2;base64,{base64.b64encode(file.getvalue()).decode()}"
