"""What an HTML handout has beside its cells: contents, places to link to, neighbours.

What is changed here is pandoc's own HTML, in which nothing of a notebook is markup, so that a
pattern finds a heading or a table for certain.
"""

import base64
import functools
import hashlib
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nh3
from ipython_pygments_lexers import IPython3Lexer  # type: ignore[import-untyped]
from markupsafe import Markup, escape
from nbformat import NotebookNode
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

from ci.handout.markdown import plain

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = TEMPLATES / "html" / "handout.js"

HEADING = re.compile(r"(?s)<h([2-6])>(.*?)</h\1>")
TABLE = re.compile(r"(?s)<table.*?</table>")
CORNER = re.compile(r"<th\b[^>]*></th>")
FORMULA = re.compile(r'(?s)<math display="block"(.*?)</math>')
UNSAID = re.compile(r"(?s)<annotation\b.*?</annotation>|<[^>]*>")
LINK = re.compile(r"</?a\b[^>]*>")
UNSTYLED = re.compile(r'<span class="(?:n|nn|p|o|w)">([^<]*)</span>')
NEIGHBOURS = re.compile(r"(?s)(<!-- neighbours -->).*?(<!-- end of neighbours -->)")


# What a result's own HTML may bring along: a table, a few words in bold, nothing that loads.
HTML_TAGS = nh3.ALLOWED_TAGS - {
    *("area", "img", "map"),
    *("article", "aside", "footer", "header", "hgroup", "nav"),  # the page has its own
    *(f"h{level}" for level in range(1, 7)),
}
SCHEMES = {"http", "https", "mailto"}


@dataclass(frozen=True)
class Heading:
    """A line of the contents. `level` is 2 or more; `markup` is what it says, without links."""

    level: int
    place: str
    markup: Markup


def contents(cells: Sequence[NotebookNode], prose: Mapping[str, str]) -> list[Heading]:
    """The headings below the title, in order."""
    return [
        Heading(int(level), _place(cell.id, number), Markup(LINK.sub("", said)))
        for cell in cells
        if cell.cell_type == "markdown"
        for number, (level, said) in enumerate(HEADING.findall(prose[cell.source]))
    ]


def _place(cell: str, number: int) -> str:
    """A cell's first heading has the place of the cell."""
    return f"{cell}-{number + 1}" if number else cell


def places(prose: str, cell: str, about: Mapping[str, Any], words: Mapping[str, str]) -> Markup:
    """A cell's `prose`, in which headings have places, and lead to the other language's."""
    numbers = itertools.count()

    def heading(found: re.Match[str]) -> str:
        place = _place(cell, next(numbers))
        anchor = "" if place == cell else f' id="{place}"'
        line = f"<h{found[1]}{anchor}>{found[2]}</h{found[1]}>"
        return f'<div class="heading">{line}{_other(cell, about, words)}</div>'

    return Markup(_framed(HEADING.sub(heading, prose), words))


def _other(cell: str, about: Mapping[str, Any], words: Mapping[str, str]) -> str:
    if not about or not cell.endswith(f"-{about['language']}"):
        return ""
    page = f"../{about['other']}/{about['name']}.html"
    place = cell.removesuffix(about["language"]) + about["other"]
    return Markup('<a href="{0}#{1}" lang="{2}" hreflang="{2}" aria-label="{3}">{4}</a>').format(
        page, place, about["other"], words["section"], words["other"]
    )


def _framed(markup: str, words: Mapping[str, str]) -> str:
    """`markup` whose tables and long formulas scroll by themselves, with the keyboard too."""
    frame = f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(words["table"])}">'
    markup = TABLE.sub(lambda found: f"{frame}{without_corners(found[0])}</div>", markup)
    return FORMULA.sub(_reachable, markup)


def _reachable(formula: re.Match[str]) -> str:
    if len(UNSAID.sub("", formula[0])) < 25:  # has room on any phone
        return formula[0]
    return f'<math display="block" tabindex="0"{formula[1]}</math>'


def clean(content: str) -> Markup:
    """An output's own HTML, of which tables and words are left, and nothing that acts or loads."""
    return Markup(without_corners(nh3.clean(content, tags=HTML_TAGS, url_schemes=SCHEMES)))


def without_corners(table: str) -> str:
    """`table` whose empty heads are cells: they head nothing."""
    return CORNER.sub("<td></td>", table)


def alternative(caption: str) -> str:
    """What a figure is, in a sentence: the first of its `caption`, whose rest is read after it."""
    without = re.sub(r"(?s)<strong>.*?</strong>[.。]?", "", caption, count=1)
    said = " ".join(html.unescape(UNSAID.sub("", without)).split())
    return re.split(r"(?<=[.。])(?:\s|(?<=。))", said, maxsplit=1)[0]


@functools.lru_cache(maxsize=4096)
def code(source: str) -> Markup:
    """Highlighted Python, a row a line; a row that has no room goes on below, further indented."""
    source = plain(source).rstrip("\n")
    markup = highlight(source, IPython3Lexer(stripnl=False), HtmlFormatter(nowrap=True))
    rows = UNSTYLED.sub(r"\1", markup.rstrip("\n")).split("\n")
    return Markup("").join(map(_row, source.split("\n"), rows))


def _row(line: str, markup: str) -> Markup:
    indent = len(line) - len(line.lstrip(" "))
    style = f' style="--i:{indent}"' if indent else ""
    return Markup(f'<span class="row"{style}>{markup}\n</span>')


@functools.cache
def script() -> Markup:
    """The script of the copy buttons, which a page does without as well."""
    return Markup(SCRIPT.read_text("utf-8").strip())


@functools.cache
def policy() -> str:
    """What a page may do: run that script, be styled, and show what is in it."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def connect(page: str, neighbours: str) -> str:
    """`page` with its links to the lessons before and after it replaced by `neighbours`."""
    return NEIGHBOURS.sub(lambda found: found[1] + neighbours + found[2], page)
