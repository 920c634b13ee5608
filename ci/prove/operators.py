"""Mutation operators: from Python text to all the small mistakes that could be made in it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

CONSTANT, AXIS, SUM, PRODUCT = "constant", "axis", "+ and -", "* and /"
COMPARISON, DROPPED = "comparison", "dropped statement"
SWAPPED = {
    ast.Add: ("-", SUM),
    ast.Sub: ("+", SUM),
    ast.Mult: ("/", PRODUCT),
    ast.Div: ("*", PRODUCT),
}
COMPARED = {  # its opposite; and where it has one, its neighbour
    "<": (">=", "<="),
    ">": ("<=", ">="),
    "<=": (">", "<"),
    ">=": ("<", ">"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
WORDS = "|".join([r"is\s+not", r"not\s+in", "is", "in", "[<>=!]=", "[<>]"])
NEVER_DROPPED = (ast.FunctionDef, ast.ClassDef, ast.Pass)


@dataclass(frozen=True)
class Change:
    """Characters `start` to `end` of a text become `replacement`: a mistake of some kind."""

    start: int
    end: int
    replacement: str
    kind: str


def changes(text: str) -> Iterator[Change]:
    """All that the operators make of Python text, each change once, in the order of the text.

    Imports, prints, annotations and the insides of formatted strings stay as they are.
    """
    source = _Source(text)
    found: dict[tuple[int, int, str], Change] = {}
    for node in _walk(ast.parse(text)):
        for change in _changes(node, source):
            found.setdefault((change.start, change.end, change.replacement), change)
    yield from (found[key] for key in sorted(found))


def line_starts(text: str) -> list[int]:
    """The character at which each line of a text begins."""
    return [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]


class _Source:
    """A text, and where in it the nodes of its tree stand."""

    def __init__(self, text: str) -> None:
        self.text, self._lines = text, text.splitlines(keepends=True)
        self._starts = line_starts(text)

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._character(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        return self._character(node.end_lineno or 0, node.end_col_offset or 0)

    def _character(self, line: int, byte: int) -> int:
        """The tree counts columns in bytes."""
        text = self._lines[line - 1]
        return self._starts[line - 1] + len(text.encode()[:byte].decode())

    def whole(self, node: ast.expr | ast.stmt, replacement: str, kind: str) -> Change:
        """The change of a whole node."""
        return Change(self.start(node), self.end(node), replacement, kind)

    def between(self, left: ast.expr, right: ast.expr, word: str) -> tuple[int, int, str]:
        """Start, end and text of the first `word`, a pattern, between two nodes."""
        start = self.end(left)
        gap = re.sub(r"#.*", lambda c: " " * len(c[0]), self.text[start : self.start(right)])
        found = re.search(word, gap)
        assert found, gap
        return start + found.start(), start + found.end(), found[0]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _only_says(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child)


def _only_says(node: ast.AST) -> bool:
    """A print, which no check reads, or a docstring."""
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    printed = isinstance(value, ast.Call) and ast.unparse(value.func) == "print"
    return printed or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _changes(node: ast.AST, source: _Source) -> Iterator[Change]:
    if isinstance(node, ast.Constant):
        for value in _others(node.value):
            yield source.whole(node, value, CONSTANT)
    elif isinstance(node, ast.keyword) and node.arg in ("dim", "axis", "dims"):
        if isinstance(node.value, ast.Constant) and node.value.value in (0, 1):
            yield source.whole(node.value, str(1 - node.value.value), AXIS)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield Change(source.end(node.value), source.end(node), "", AXIS)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield _swapped(node.op, *source.between(node.left, node.right, r"[-+*/]"))
    elif isinstance(node, ast.AugAssign) and type(node.op) in SWAPPED:
        yield _swapped(node.op, *source.between(node.target, node.value, r"[-+*/]"))
    elif isinstance(node, ast.Compare):
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            start, end, word = source.between(left, right, WORDS)
            for other in COMPARED[" ".join(word.split())]:
                yield Change(start, end, other, COMPARISON)
    elif isinstance(node, ast.stmt) and not isinstance(node, NEVER_DROPPED):
        yield source.whole(node, "pass", DROPPED)


def _swapped(operator: ast.operator, start: int, end: int, _: str) -> Change:
    return Change(start, end, *SWAPPED[type(operator)])


def _others(value: object) -> list[str]:
    """The wrong values for a right one: one more; 0 for 1 and 1 for 0; the other truth value."""
    if isinstance(value, bool):
        return [repr(not value)]
    if isinstance(value, int | float):
        return [repr(value + 1), *(["0"] if type(value) is int and value == 1 else [])]
    return []
