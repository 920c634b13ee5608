"""The title of a lesson: the first heading of its prose, as plain text."""

import html
import re
from collections.abc import Iterator

from ci.lesson.node import NotebookNode

FENCE = re.compile(r" {0,3}(```+|~~~+)")
ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
SMALL_TAGS = re.compile(r"(`+.+?`+)|</?(?:b|i|s|u|br|kbd|sub|sup)\b[^<>]*>")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")


def title(notebook: NotebookNode, language: str) -> str | None:
    """The first heading of the highest level, in this language; None without a heading."""
    found = [
        heading
        for cell in notebook.cells
        if cell.cell_type == "markdown" and cell.metadata.get("lang", language) == language
        for heading in _headings(cell.source)
    ]
    return _plain(min(found, key=lambda heading: heading[0])[1]) if found else None


def _headings(text: str) -> Iterator[tuple[int, str]]:
    """Level and text of each heading outside of fenced code."""
    fence, previous = "", ""
    for line in text.split("\n"):
        mark = FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        elif (heading := ATX.fullmatch(line)) and heading[2]:
            yield len(heading[1]), heading[2]
        elif (under := UNDERLINE.fullmatch(line)) and re.match(r" {0,3}[^\s#>|-]", previous):
            yield (1 if under[1][0] == "=" else 2), previous.strip()
        previous = line


def _plain(text: str) -> str:
    """Markdown without its marks: small tags, and those of code, formulas, links and emphasis."""
    text = SMALL_TAGS.sub(lambda found: found[1] or "", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(`+|\$\$?)(.+?)\1", r"\2", text)
    text = re.sub(r"(\*\*|__|\*|\b_)(\S(?:.*?\S)?)\1", r"\2", text)
    return " ".join(html.unescape(text).split())
