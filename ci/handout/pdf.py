"""PDF by Typst: literals and folded code for its source, the file, and what can't be set in it.

What comes from a notebook goes into Typst as string literals, so that nothing in it can be markup.
"""

import contextlib
import functools
import hashlib
import json
import math
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import typst
from markupsafe import Markup

from ci.handout.markdown import plain, visible

EACH_GLYPH = ["a-2u"]  # PDF/A, level u: Typst refuses a character that no font has
ACCESSIBLE = ["a-2a"]  # level a: it also refuses a picture or a formula without a description
# The default value, of which Debian's poppler says "Suspects object is wrong type (boolean)".
SUSPECTS = b"/MarkInfo<</Marked true/Suspects false>>"

STYLE = Path(__file__).parent / "templates" / "typst" / "handout.typ"
PART = "\x1e"  # begins a part of a source, such as a cell; no text has control characters
# The style's names stay out of formulas, where bar and note mean symbols.
IMPORTS = '#import "handout.typ" as sheet\n#import "handout.typ": horizontalrule\n'
COLUMNS = 98  # of code on a page, in the font size that the style sets
CONTINUED = "↪"  # begins a line that was folded


def literal(value: Any) -> str:
    """`value` as Typst code: markup from pandoc as it is, truth values, numbers and None by their
    own literals, everything else as a string literal."""
    match value:
        case Markup():
            return str(value)
        case bool() | None:
            return str(value).lower()
        case float():
            return f"{value:.6f}" if math.isfinite(value) else "float.inf"
    return json.dumps(plain(str(value)), ensure_ascii=False)


def fold(text: str, columns: int = COLUMNS, mark: str = CONTINUED) -> str:
    """`text` in lines of at most `columns`, where a Chinese character takes two.

    `mark` begins each line that was folded. Characters that turn the direction of text around are
    shown and not obeyed, so that code reads as it runs.
    """
    lines = visible(plain(text)).expandtabs(8).split("\n")
    return "\n".join(piece for line in lines for piece in _pieces(line, columns, mark))


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
    """`text` with a last line of at most `columns`, so that a mark fits at its right."""
    last = text.rpartition("\n")[2]
    return text if _fitting(last, columns) == len(last) else f"{text}\n "


def handout(source: str, pictures: Mapping[str, bytes], date: str) -> bytes:
    """The PDF of a handout, tagged for screen readers and dated like its run, so that the same
    notebook makes the same file.

    A notebook from elsewhere may skip heading levels, which PDF/UA forbids; its file does not claim
    PDF/UA. Raises typst.TypstError.
    """
    timestamp = _timestamp(date)
    source, parts = in_files(source)
    files = {**pictures, **parts}
    try:
        pdf = typeset(source, files, timestamp, [*ACCESSIBLE, "ua-1"])
    except typst.TypstError as error:
        if not error.message.startswith("PDF/UA-1 error"):
            raise
        pdf = typeset(source, files, timestamp, ACCESSIBLE)
    return pdf.replace(SUSPECTS, SUSPECTS.replace(b"/Suspects false", b" " * 15))


def in_files(source: str) -> tuple[str, dict[str, bytes]]:
    """A source that includes its parts, and the file of each part, which is named by its content.

    Typst sets a file that it has set before in a third of the time, and editions share most parts.
    """
    main, *parts = source.split(PART)
    named = [(f"{hashlib.sha256(part.encode()).hexdigest()}.typ", part) for part in parts]
    main += "\n\n".join(f'#include "{name}"' for name, _ in named)
    return IMPORTS + main, {name: (IMPORTS + part).encode() for name, part in named}


def _timestamp(date: str) -> int | None:
    """Seconds since 1970 of the date of a run; None if it has no date."""
    try:
        return int(datetime.strptime(date, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def typeset(
    source: str,
    files: Mapping[str, bytes] | None = None,
    timestamp: int | None = None,
    standards: Sequence[Any] = EACH_GLYPH,
) -> bytes:
    """The PDF of a Typst source that may use `files`, with the handouts' style and fonts.

    Raises typst.TypstError.
    """
    contents = {"handout.typ": STYLE.read_bytes(), "main.typ": source.encode(), **(files or {})}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        pdf: bytes = typst.compile(
            f"{folder}/main.typ",  # not a Path: an interrupt in its code would be a TypeError
            root=folder,
            font_paths=_fonts(),
            ignore_system_fonts=True,
            pdf_standards=list(standards),
            timestamp=timestamp,
        )
    return pdf


@functools.cache
def _fonts() -> typst.Fonts:
    """Typst's own fonts; Noto Sans SC and KR, which have Chinese and Korean in every weight; Noto
    Emoji and the scripts beside it in its package. No others."""
    east_asian = files("justmytype_intl_cjk") / "fonts" / "ofl"
    folders = [str(east_asian / "notosanssc"), str(east_asian / "notosanskr")]
    with contextlib.suppress(ModuleNotFoundError):  # without it, an emoji is refused by name
        folders.append(str(files("manimgx_fonts")))
    return typst.Fonts(include_system_fonts=False, font_paths=folders)
