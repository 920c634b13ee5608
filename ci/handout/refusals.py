"""Why a notebook cannot be set, and which of its cells is at fault."""

import bisect
import re
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typst

from ci.errors import CourseError

T = TypeVar("T")

REFUSED = (CourseError, typst.TypstError, Base64Error)


def reason(error: Exception) -> str:
    """Why content was refused, in one line."""
    match error:
        case CourseError():
            return str(error)
        case Base64Error():
            return "a picture in its output is not base64"
        case typst.TypstError():
            return _reason_of_typst(error)
    raise error


def _reason_of_typst(error: typst.TypstError) -> str:
    if found := re.search(r'the text `"(.+?)"` could not be displayed', error.diagnostic):
        return f"no font of the handouts has the character {found[1]} ({_points(found[1])})"
    if found := re.search(r'codepoint `"\\u\{([0-9a-f]+)\}"`', error.diagnostic):
        return f"a PDF may not contain the character U+{int(found[1], 16):04X}; remove it"
    if found := re.search(r"failed to load linked image (.+?) in SVG", error.message):
        return f"an SVG in its output loads the file {found[1]}: embed it as a data: URL"
    if "depth exceeded" in error.message:
        return f"Typst can't set it ({error.message}): make it shorter or less nested"
    return f"Typst can't set it: {' '.join(error.message.split())}"


def _points(text: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in text)


def first_refused(items: Sequence[T], convert: Callable[[Sequence[T]], Any]) -> T | None:
    """The first of `items` that `convert` refuses, found by bisection; None if it takes all."""

    def is_refused(count: int) -> bool:
        try:
            convert(items[:count])
        except REFUSED:
            return True
        return False

    if not is_refused(len(items)):
        return None
    return items[bisect.bisect_left(range(len(items)), True, key=lambda i: is_refused(i + 1))]
