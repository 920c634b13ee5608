"""Typst: from its source to PDF pages, and what in a lesson can't be set on them.

What comes from a notebook goes into Typst as string literals, so that nothing in it can be markup.
"""

import functools
import json
import math
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import typst
from markupsafe import Markup
from nbformat import NotebookNode

from ci.errors import CourseError
from ci.handout import markdown
from ci.handout.markdown import plain
from ci.lesson.lesson import Lesson

EACH_GLYPH = ["a-2u"]  # PDF/A, level u: Typst refuses a character that no font has
ACCESSIBLE = ["a-2a"]  # level a: it also refuses a picture or a formula without words
# The default, spelt out, of which Debian's poppler says "Suspects object is wrong type (boolean)".
SUSPECTS = b"/MarkInfo<</Marked true/Suspects false>>"

STYLE = Path(__file__).parent / "templates" / "typst" / "handout.typ"
COLUMNS = 98  # of code on a page, as wide as the style sets it
CONTINUED = "↪"  # begins what was folded

# What Markdown leaves of a formula or of an emphasis that it does not take as one.
LEFT_OVER = {
    r"\\begin\{": r"a formula must stand between $$ and $$, \begin{…} too",
    r"\$\$": "$$ must open and close a formula of its own, without an empty line in it",
    r"\\[A-Za-z]|^\$$": "this formula is none: it must touch its dollars and close its braces",
    r"\*\*": "** is no emphasis here: beside Chinese, punctuation goes outside, as in **图**。",
}


def literal(value: Any) -> str:
    """`value` as Typst code: markup that pandoc made as it is, a truth value, a number or None as
    such, all else as a string literal."""
    match value:
        case Markup():
            return str(value)
        case bool() | None:
            return str(value).lower()
        case float():
            return f"{value:.6f}" if math.isfinite(value) else "float.inf"
    return json.dumps(plain(str(value)), ensure_ascii=False)


def fold(text: str, columns: int = COLUMNS, mark: str = CONTINUED) -> str:
    """`text` in lines of at most `columns`, a Chinese character taking two; `mark` begins what
    was folded."""
    lines = _overt(plain(text)).expandtabs(8).split("\n")
    return "\n".join(piece for line in lines for piece in _pieces(line, columns, mark))


def _overt(text: str) -> str:
    """`text` with what turns its direction around shown, not obeyed: code reads as it runs."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", lambda c: f"<U+{ord(c[0]):04X}>", text)


def _pieces(line: str, columns: int, mark: str) -> Iterator[str]:
    while (end := _fitting(line, columns)) < len(line):
        cut = line.rfind(" ", end // 2, end) + 1 or end
        yield line[:cut]
        line = mark + line[cut:]
    yield line


def _fitting(line: str, columns: int) -> int:
    """How many characters of `line` fit."""
    width = 0
    for number, character in enumerate(line):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            return number
    return len(line)


def beside(text: str, columns: int) -> str:
    """`text` with a last line of at most `columns`, so that a mark can stand at its right."""
    last = text.rpartition("\n")[2]
    return text if _fitting(last, columns) == len(last) else f"{text}\n "


def typeset(
    source: str,
    pictures: Mapping[str, bytes] | None = None,
    timestamp: int | None = None,
    standards: Sequence[Any] = EACH_GLYPH,
) -> bytes:
    """The PDF of a Typst source, with our style and fonts. Raises typst.TypstError."""
    contents = {"handout.typ": STYLE.read_bytes(), "main.typ": source.encode(), **(pictures or {})}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        pdf: bytes = typst.compile(
            Path(folder, "main.typ"),
            root=Path(folder),
            font_paths=_fonts(),
            ignore_system_fonts=True,
            pdf_standards=list(standards),
            timestamp=timestamp,
        )
    return pdf


def handout(source: str, pictures: Mapping[str, bytes], date: str) -> bytes:
    """The PDF of a handout: tagged, for archives and for screen readers, and of its run's date.

    PDF/UA wants headings that skip no level. A file of which that is untrue, as it may be of a
    notebook from elsewhere, does not claim it. Raises typst.TypstError.
    """
    timestamp = _timestamp(date)
    try:
        pdf = typeset(source, pictures, timestamp, [*ACCESSIBLE, "ua-1"])
    except typst.TypstError as error:
        if not error.message.startswith("PDF/UA-1 error"):
            raise
        pdf = typeset(source, pictures, timestamp, ACCESSIBLE)
    return pdf.replace(SUSPECTS, SUSPECTS.replace(b"/Suspects false", b" " * 15))


def _timestamp(date: str) -> int | None:
    """Seconds since 1970 of the run's date: the same notebook makes the same file."""
    try:
        return int(datetime.strptime(date, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


@functools.cache
def _fonts() -> typst.Fonts:
    """Typst's own fonts and Noto Sans SC, which has Chinese in every weight; no others."""
    folder = files("justmytype_intl_cjk") / "fonts" / "ofl" / "notosanssc"
    return typst.Fonts(include_system_fonts=False, font_paths=[str(folder)])


def explain(error: typst.TypstError, cells: Iterable[NotebookNode]) -> tuple[str, str]:
    """Why Typst refused, and the cell that holds the character that no font has ("" for others)."""
    found = re.search(r'the text `"(.+?)"` could not be displayed', error.diagnostic)
    if not found:
        return f"Typst can't set it: {error.diagnostic.strip()}", ""
    points = " ".join(f"U+{ord(character):04X}" for character in found[1])
    guilty = (c.id for c in cells if found[1] in json.dumps(c, ensure_ascii=False))
    return f"no font of the handouts has the character {found[1]} ({points})", next(guilty, "")


def check_formulas(lessons: Iterable[Lesson]) -> None:
    """Set each formula of `lessons` by itself, in MathML and in Typst, before any kernel starts.

    Raises CourseError, with file, line and formula, for the first that one of the two refuses; for
    what looks like a formula or an emphasis and is none; and for a character that no font has.
    """
    with ThreadPoolExecutor() as several:  # most of the time goes to processes of pandoc
        list(several.map(_check, lessons))


def _check(lesson: Lesson) -> None:
    cells = [cell for cell in lesson.notebook.cells if cell.cell_type == "markdown"]
    documents = markdown.read([cell.source for cell in cells])
    wanted = [formula for document in documents for formula in markdown.formulas(document)]
    in_html = markdown.set_formulas(wanted, "html")
    in_typst = markdown.set_formulas(wanted, "typst")
    good = not _refusal("\n\n".join(in_typst.values()))
    for cell, document in zip(cells, documents, strict=True):
        for text in markdown.words(document):
            for advice in (LEFT_OVER[sign] for sign in LEFT_OVER if re.search(sign, text)):
                raise CourseError(f"{_place(lesson, cell, text)}: {text}: {advice}")
        for formula in markdown.formulas(document):
            known = in_html[formula] and in_typst[formula]
            why = "pandoc does not know this TeX"
            if known:
                why = "" if good else _refusal(in_typst[formula])
            if why:
                place, tex = _place(lesson, cell, formula[1]), formula[1].strip()
                raise CourseError(f"{place}: the formula {tex} can't be set: {why}")
    _refuse_characters(lesson)


def _refusal(formulas: str) -> str:
    """Why Typst refuses them; empty where it does not."""
    try:
        typeset(f'#import "handout.typ" as sheet\n#show: sheet.formulas-in\n{formulas}')
    except typst.TypstError as error:
        return f"Typst: {error.message}"
    return ""


def _refuse_characters(lesson: Lesson) -> None:
    cells = lesson.notebook.cells
    used = sorted({character for cell in cells for character in plain(cell.source)})
    try:
        typeset(f"#{literal(' '.join(used))}")
    except typst.TypstError as error:
        why, cell = explain(error, cells)
        raise CourseError(f"{lesson.location(cell)}: {why}") from None


def _place(lesson: Lesson, cell: NotebookNode, text: str) -> str:
    """File and line of `text` in a cell, as people and CI systems read it."""
    word = re.search(rf"(?<!\S){re.escape(text)}(?!\S)", cell.source)
    start = word.start() if word else max(cell.source.find(text), 0)
    line = lesson.line(cell.id) + cell.source[:start].count("\n")
    return f"{lesson.path.parent.name}/{lesson.path.name}:{line}"
