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
from nbformat import NotebookNode
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

from ci.handout.markdown import plain, visible

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = TEMPLATES / "html" / "handout.js"
FONT = Path(__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"

HEADING = re.compile(r"(?s)<h([2-6])>(.*?)</h\1>")
TABLE = re.compile(r"(?s)<table.*?</table>")
EMPTY_HEAD = re.compile(r"<th\b[^>]*></th>")
MATH = re.compile(r"(?s)<math\b.*?</math>")
DISPLAY_MATH = re.compile(r'(?s)<math display="block"(.*?)</math>')
SILENT = re.compile(r"(?s)<annotation\b.*?</annotation>|<[^>]*>")
LINK = re.compile(r"</?a\b[^>]*>")
UNSTYLED = re.compile(r'<span class="(?:n|nn|p|o|w)">([^<]*)</span>')
NEIGHBOURS = re.compile(r"(?s)(<!-- neighbours -->).*?(<!-- end of neighbours -->)")

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
    """A line of the contents. `level` is 2 or more; `markup` is the heading without links."""

    level: int
    place: str
    markup: Markup


def contents(cells: Sequence[NotebookNode], prose: Mapping[str, str]) -> list[Heading]:
    """The headings below the title, in order."""
    return [
        Heading(int(level), _place(cell.id, number), Markup(LINK.sub("", heading)))
        for cell in cells
        if cell.cell_type == "markdown"
        for number, (level, heading) in enumerate(HEADING.findall(prose[cell.source]))
    ]


def _place(cell: str, number: int) -> str:
    """The link target of a cell's heading; the first one shares the target of the cell."""
    return f"{cell}-{number + 1}" if number else cell


def places(prose: str, cell: str, about: Mapping[str, Any], labels: Mapping[str, str]) -> Markup:
    """The prose of a cell, with a target on each heading and a link to the other language."""
    numbers = itertools.count()

    def heading(found: re.Match[str]) -> str:
        place = _place(cell, next(numbers))
        anchor = "" if place == cell else f' id="{place}"'
        line = f"<h{found[1]}{anchor}>{found[2]}</h{found[1]}>"
        return f'<div class="heading">{line}{_other_language(cell, about, labels)}</div>'

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


@functools.cache
def policy() -> str:
    """The content security policy: a page may run its script, use styles and show its content."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def connect(page: str, neighbours: str) -> str:
    """`page` with its links to the lessons before and after it replaced by `neighbours`."""
    return NEIGHBOURS.sub(lambda found: found[1] + neighbours + found[2], page)


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
