"""The `# %%` line that begins a cell: its type and its attributes."""

import ast
import json
import re
from typing import Any

from ci.lesson.fault import misspelt

CELL_ATTRIBUTES = ["lang", "check", "given", "raises", "stdout", "tags", "language"]

MARK = re.compile(r"#\s*%%(%*)(?:[ \t]+(.*))?$")
TYPE = re.compile(r"\[([^\]\[\"'=]*)\]?")
TYPES = ["markdown", "md", "raw", "code"]
PAIR = re.compile(r"([\w.:-]+)\s*=\s*")
ADJACENT = re.compile(r"""["']\s+\w?["']""")
# A comment that begins no cell, but has an attribute of one.
NEARLY = re.compile(
    rf"\s*[#\uff03]+\s*(?:%+|In ?\[[\d ]*\]:|<codecell>)\W*(?:{'|'.join(CELL_ATTRIBUTES)})"
    r"\s*[=:\uff1d\uff1a]\s*[\"'\[\u201c]"
)
AFTER_NAME = r"[:\"'\[\u201c\u2018\uff1d\uff1a]"
WRITE = 'write attributes as check="name" or tags=["a", "b"]'

Fault = tuple[int, str]
Mark = tuple[str, dict[str, Any], list[Fault]]


def read(text: str, line: int, follows_text: bool) -> Mark:
    """The type of a cell, its attributes, and the faults of its `# %%` line."""
    match = MARK.match(text)
    options = ((match and match[2]) or "").strip()
    kind = "code"
    if (found := TYPE.search(options)) and found[1].strip():
        word = found[1].strip() if found[0].endswith("]") else found[1].split()[0]
        if word in TYPES and found[0].endswith("]"):
            kind = word
            options = f"{options[: found.start()]} {options[found.end() :]}".strip()
        elif word in TYPES or (not PAIR.search(options[: found.start()]) and misspelt(word, TYPES)):
            guess = word if word in TYPES else misspelt(word, TYPES)
            return kind, {}, [(line, f"unknown cell type '{found[0]}'; did you mean '[{guess}]'?")]
    title, pairs = _split(options)
    if fault := _title_fault(title, bool(pairs) or kind != "code", follows_text):
        return kind, {}, [(line, fault)]
    return _pairs(kind, pairs, line)


def _split(options: str) -> tuple[str, str]:
    """The title of a cell and its attributes. A title may contain `=`, as in `Solve Ax = b`."""
    keys = [match for match in PAIR.finditer(options) if _known(match[1])]
    if first := PAIR.search(options):
        after = options[first.end() :]
        if keys or re.match(r"[\"'\[{\d]|true\b|false\b|null\b", after):
            return options[: first.start()].strip(), options[first.start() :]
    return options, ""


def _known(word: str) -> bool:
    return word in CELL_ATTRIBUTES or misspelt(word, CELL_ATTRIBUTES) is not None


def _title_fault(title: str, is_mark: bool, follows_text: bool) -> str | None:
    for word in re.findall(r"\w+", title):
        if word in CELL_ATTRIBUTES and re.search(rf"\b{word}\b\s*{AFTER_NAME}", title):
            return f"cannot read '{title}': {WRITE}"
    if title in CELL_ATTRIBUTES or title.startswith("{"):
        return f"cannot read '{title}': {WRITE}"
    if title and follows_text and not is_mark:
        return (
            f"'# %% {title}' is a comment or begins a cell: remove %%, or leave a line empty above"
        )
    return None


def _pairs(kind: str, text: str, line: int) -> Mark:
    attributes: dict[str, Any] = {}
    faults: list[Fault] = []
    while text:
        match = PAIR.match(text)
        if match is None:
            return kind, {}, [(line, f"cannot read '{text}': {WRITE}")]
        value, rest = _value(text[match.end() :])
        if rest is None or (rest and not rest[0].isspace() and rest[0] != ","):
            return kind, {}, [(line, f"cannot read '{text}': {WRITE}")]
        if match[1] in attributes:
            faults.append((line, f"a second attribute '{match[1]}': remove one of them"))
        attributes[match[1]], text = value, rest.lstrip(" \t,")
    return _checked(kind, attributes, line, faults)


def _value(text: str) -> tuple[Any, str | None]:
    """The value at the beginning of `text` and what follows it, which is None after no value."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        return value, text[end:]
    except (ValueError, RecursionError):
        pass
    for end in [match.end() for match in re.finditer(r"(?<=[\"'\])}\w])(?=[\s,]|$)", text)]:
        try:
            if ADJACENT.search(text[:end]):  # Python would join them
                continue
            return ast.literal_eval(text[:end]), text[end:]
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None, None


def _checked(kind: str, found: dict[str, Any], line: int, faults: list[Fault]) -> Mark:
    """The attributes that have a meaning here. A misspelt name and a malformed value are faults."""
    for key, value in found.items():
        if key not in CELL_ATTRIBUTES:
            if guess := misspelt(key, CELL_ATTRIBUTES):
                faults.append((line, f"unknown attribute '{key}'; did you mean '{guess}'?"))
        elif key == "tags":
            if type(value) is not list or not all(type(tag) is str for tag in value):
                faults.append((line, f'tags={value!r} must be a list of words, as tags=["figure"]'))
        elif type(value) is not str:
            faults.append((line, f"{key}={value!r} must be text in quotes"))
    if faults:
        return kind, {}, faults
    return kind, {key: found[key] for key in CELL_ATTRIBUTES if key in found}, []
