"""Mutation operators: each turns Python code into versions of it with one small mistake."""

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
NEGATED = {"<": ">=", ">": "<=", "==": "!=", "is": "is not", "in": "not in"}
NEGATED |= {negated: comparison for comparison, negated in NEGATED.items()}
OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
ARITHMETIC = r"[-+*/]"
COMPARISON_OPERATOR = r"is\s+not|not\s+in|is|in|[<>=!]=|[<>]"


@dataclass(frozen=True)
class Change:
    """One mistake: characters `start` to `end` of a text become `replacement`."""

    start: int
    end: int
    replacement: str
    kind: str


def changes(text: str) -> Iterator[Change]:
    """Every change that the operators make to Python code, in the order of the text.

    Imports, prints, docstrings, annotations and f-strings are left alone, since no check reads
    them.
    """
    source = _Source(text)
    found: dict[tuple[int, int, str], Change] = {}
    for node in _walk(ast.parse(text)):
        for change in _changes(node, source):
            found.setdefault((change.start, change.end, change.replacement), change)
    yield from (found[key] for key in sorted(found))


class _Source:
    """A text and the positions of syntax nodes in it: `ast` counts UTF-8 bytes from each line."""

    def __init__(self, text: str) -> None:
        self.text, self._bytes = text, text.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._line_starts = [0, *accumulate(len(line) for line in lines)]

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """The characters at which a node starts and ends."""
        start = self._line_starts[node.lineno - 1] + node.col_offset
        end = self._line_starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return len(self._bytes[:start].decode()), len(self._bytes[:end].decode())

    def operator(self, left: ast.expr, right: ast.expr, pattern: str) -> tuple[int, int, str]:
        """Start, end and text of the operator between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = re.sub(r"#.*", lambda comment: " " * len(comment[0]), self.text[start:end])
        found = re.search(pattern, gap)
        assert found, gap
        return start + found.start(), start + found.end(), found[0]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _is_text_only(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child)


def _is_text_only(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id="print")) | ast.Constant(value=str())):
            return True
    return False


def _changes(node: ast.AST, source: _Source) -> Iterator[Change]:
    match node:
        case ast.Constant(value=value):
            for wrong in _wrong_constants(value):
                yield Change(*source.span(node), wrong, CONSTANT)
        case ast.keyword(arg="dim" | "axis" | "dims", value=ast.Constant(value=0 | 1) as axis):
            yield Change(*source.span(axis), "1" if axis.value == 0 else "0", AXIS)
        case ast.Attribute(value=matrix, attr="T"):
            yield Change(source.span(matrix)[1], source.span(node)[1], "", AXIS)
        case (
            ast.BinOp(left=left, op=operator, right=right)
            | ast.AugAssign(target=left, op=operator, value=right)
        ) if type(operator) in SWAPPED:
            start, end, _ = source.operator(left, right, ARITHMETIC)
            yield Change(start, end, *SWAPPED[type(operator)])
        case ast.Compare(left=left, comparators=others):
            for first, second in zip([left, *others], others, strict=False):
                start, end, word = source.operator(first, second, COMPARISON_OPERATOR)
                word = " ".join(word.split())
                for wrong in filter(None, (NEGATED[word], OFF_BY_ONE.get(word))):
                    yield Change(start, end, wrong, COMPARISON)
        case ast.FunctionDef() | ast.ClassDef() | ast.Pass():
            pass
        case ast.stmt():
            yield Change(*source.span(node), "pass", DROPPED)


def _wrong_constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [repr(not value)]
    if isinstance(value, int | float):
        return [repr(value + 1), *(["0"] if type(value) is int and value == 1 else [])]
    return []
