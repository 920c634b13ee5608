"""Prose in the handouts' dialect as Jupyter shows it best: it knows no callouts, sets a line break
between Chinese characters as a space, and opens notebooks, not scripts."""

import re

from ci.handout.dialect import CONSTRUCTS, LESSON_LINK
from ci.handout.prose_tree import callout_title

CALLOUT = re.compile(r"(?m)^> \[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\][ \t]*\n((?:>.*(?:\n|\Z))*)")
LINK = re.compile(r"\]\((?P<target>[^\s)]+)\)")
# As in pandoc's reading of Chinese: between two wide characters, or beside wide punctuation.
WIDE = "\u2e80-\u303e\u3040-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60"
MARKS = (
    "\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff60"
)
BLOCK = r"(?![ \t]*(?:[-+*>#|]|\d+[.)]|```|~~~|$))"  # what begins with it is no continued line
SOFT_BREAK = re.compile(
    rf"(?m)(?<=[{WIDE}])\n(?:> ?)?[ \t]*{BLOCK}(?=[{WIDE}])|(?<=[{MARKS}])\n[ \t]*{BLOCK}(?=\S)"
    rf"|(?<=\S)\n[ \t]*(?=[{MARKS}])"
)


def rewrite(text: str) -> str:
    """`text` for a notebook; its code stays as it is."""
    text = CALLOUT.sub(_callout, text)
    parts, end = [], 0
    for found in CONSTRUCTS.finditer(text):
        if found["code"] and found["ticks"]:
            parts += [_prose(text[end : found.start()]), found[0]]
            end = found.end()
    return "".join([*parts, _prose(text[end:])])


def _prose(text: str) -> str:
    return LINK.sub(_to_notebook, SOFT_BREAK.sub("", text))


def _callout(found: re.Match[str]) -> str:
    return f"> **{callout_title(found[1].lower(), found[2])}**\n>\n{found[2]}"


def _to_notebook(found: re.Match[str]) -> str:
    lesson = LESSON_LINK.fullmatch(found["target"])
    return f"]({lesson[1]}.ipynb)" if lesson else found[0]
