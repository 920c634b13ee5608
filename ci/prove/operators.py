"""Mutation operators: each turns Python code into versions of it with one small mistake."""

import ast
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

CONSTANT, AXIS, SUM, PRODUCT = "constant", "axis", "+ and -", "* and /"
COMPARISON, DROPPED, SWAP = "comparison", "dropped statement", "swapped values"
METHOD, KEYWORD, FUNCTION = "dropped method", "dropped keyword", "other function"
DTYPE, RANKS, ORDER = "dtype", "reversed ranks", "order of items"
SWAPPED = {
    ast.Add: ("-", SUM),
    ast.Sub: ("+", SUM),
    ast.Mult: ("/", PRODUCT),
    ast.Div: ("*", PRODUCT),
}
NEGATED = {"<": ">=", ">": "<=", "==": "!=", "is": "is not", "in": "not in"}
NEGATED |= {negated: comparison for comparison, negated in NEGATED.items()}
OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
CONFUSED = [
    *(("sum", "mean"), ("max", "min"), ("amax", "amin"), ("maximum", "minimum"), ("all", "any")),
    *(("zeros", "ones"), ("zeros_like", "ones_like"), ("cat", "stack"), ("var", "std")),
    *(("chunk", "tensor_split"), ("double", "float"), ("exp", "log")),
]
OTHER_FUNCTION = dict(CONFUSED) | {second: first for first, second in CONFUSED}
BUILTINS = {"max", "min", "all", "any"}
SYMMETRIC = {"max", "min", "maximum", "minimum", "equal", "allclose", "isclose", "dot"}
OTHER_DTYPE = {"float32": "float64", "float64": "float32", "int64": "int32", "long": "int32"}
METHODS = {"abs", "astype", "clone", "contiguous", "copy", "detach", "double", "float", "item"}
METHODS |= {"requires_grad_", "to", "tolist"}
LEFT_ALONE = {None, "device", "encoding"}  # keywords that can change nothing without a GPU
ARITHMETIC = r"[-+*/]"
COMPARISON_OPERATOR = r"is\s+not|not\s+in|is|in|[<>=!]=|[<>]"


@dataclass(frozen=True)
class Change:
    """One mistake: characters `start` to `end` of a text become `replacement`."""

    start: int
    end: int
    replacement: str
    kind: str


def changes(text: str, compared: Container[int] = ()) -> Iterator[Change]:
    """Every change that the operators make to Python code, in the order of the text.

    Imports, docstrings, annotations and f-strings are left alone, since no check reads them, and
    so are prints, except in the `compared` lines. Devices are left alone too: without a GPU, there
    is only one.
    """
    source = _Source(text)
    found: dict[tuple[int, int, str], Change] = {}
    for node in _walk(ast.parse(text), compared):
        for change in chain(*(operator(node, source) for operator in OPERATORS)):
            found.setdefault((change.start, change.end, change.replacement), change)
    yield from (found[key] for key in sorted(found))


class _Source:
    """A text and the positions of syntax nodes in it: `ast` counts UTF-8 bytes from each line."""

    def __init__(self, text: str) -> None:
        self.text, self._bytes = text, text.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._line_starts = [0, *accumulate(len(line) for line in lines)]

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
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


def _walk(node: ast.AST, compared: Container[int]) -> Iterator[ast.AST]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _is_text(node, compared):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child, compared)


def _is_text(node: ast.AST, compared: Container[int]) -> bool:
    """Whether a statement is a docstring, or a print whose text is not compared."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="print")), lineno=line):
            return line not in compared
    return False


def _changes(node: ast.AST, source: _Source) -> Iterator[Change]:
    match node:
        case ast.Constant(value=value):
            for wrong in _wrong_constants(value):
                yield Change(*source.span(node), wrong, CONSTANT)
        case ast.keyword(arg="dim" | "axis" | "dims", value=ast.Constant(value=0 | 1) as axis):
            yield Change(*source.span(axis), "1" if axis.value == 0 else "0", AXIS)
        case ast.Attribute(attr="T"):
            end = source.span(node)[1]
            yield Change(source.text.rindex(".", 0, end), end, "", AXIS)
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


def _swaps(node: ast.AST, source: _Source) -> Iterator[Change]:
    """Two neighbours of one syntax, in a sequence or in a call, in the wrong order."""
    match node:
        case ast.Tuple(elts=values) | ast.List(elts=values) | ast.Dict(values=values):
            pass
        case ast.Call(args=values) if _name(node) not in SYMMETRIC:
            pass
        case _:
            return
    for first, second in pairwise(values):
        if type(first) is type(second) and not isinstance(first, ast.Constant | ast.Starred):
            (start, first_end), (second_start, end) = source.span(first), source.span(second)
            words, between = source.text, source.text[first_end:second_start]
            swapped = words[second_start:end] + between + words[start:first_end]
            if swapped != words[start:end]:
                yield Change(start, end, swapped, SWAP)


def _orders(node: ast.AST, source: _Source) -> Iterator[Change]:
    """The items of a dict in another order, which a reader sees if the dict is shown."""
    match node:
        case (
            ast.Expr(value=ast.Dict(keys=keys, values=values))
            | ast.Return(value=ast.Dict(keys=keys, values=values))
        ) if None not in keys:
            pairs = zip(keys, values, strict=True)
            spans = [(source.span(key)[0], source.span(value)[1]) for key, value in pairs if key]
            for (start, first_end), (second_start, end) in pairwise(spans):
                words, between = source.text, source.text[first_end:second_start]
                swapped = words[second_start:end] + between + words[start:first_end]
                yield Change(start, end, swapped, ORDER)
        case ast.DictComp(generators=[ast.comprehension(iter=items)]):
            if ast.unparse(items) != "devices":  # without a GPU, there is only one
                yield _reversed(items, source)
        case ast.For(target=ast.Name(id=name), iter=items, body=[*_, ast.Assign(targets=[target])]):
            match target:
                case ast.Subscript(slice=ast.Name(id=key)) if key == name:
                    yield _reversed(items, source)


def _reversed(items: ast.expr, source: _Source) -> Change:
    start, end = source.span(items)
    return Change(start, end, f"reversed([*{source.text[start:end]}])", ORDER)


def _calls(node: ast.AST, source: _Source) -> Iterator[Change]:
    """Another function, dtype or order of ranks; a method or a keyword that is missing."""
    match node:
        case ast.Attribute(owner, name) if name in OTHER_DTYPE:
            yield Change(
                source.span(owner)[1], source.span(node)[1], f".{OTHER_DTYPE[name]}", DTYPE
            )
        case ast.Constant(str(name)) if name in OTHER_DTYPE:
            yield Change(*source.span(node), f'"{OTHER_DTYPE[name]}"', DTYPE)
        case ast.Call():
            yield from _call(node, source)


def _call(node: ast.Call, source: _Source) -> Iterator[Change]:
    (start, end), name = source.span(node), _name(node)
    words = source.text[start:end]
    if words == "range(world_size)":
        yield Change(end, end, "[::-1]", RANKS)
    if name == "get_rank":
        yield Change(start, end, f"(dist.get_world_size() - 1 - {words})", RANKS)
    if name in OTHER_FUNCTION and (isinstance(node.func, ast.Attribute) or name in BUILTINS):
        function_end = source.span(node.func)[1]
        yield Change(function_end - len(name), function_end, OTHER_FUNCTION[name], FUNCTION)
    if name in METHODS and isinstance(node.func, ast.Attribute) and not _is_placement(words):
        dot = source.text.rindex(".", 0, source.span(node.func)[1])
        yield Change(dot, end, "", METHOD)
    if name != "expect":
        yield from _dropped_keywords(node, source)


def _dropped_keywords(node: ast.Call, source: _Source) -> Iterator[Change]:
    values: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
    for before, value, after in zip([None, *values], values, [*values[1:], None], strict=False):
        if isinstance(value, ast.keyword) and value.arg not in LEFT_ALONE:
            start = source.span(before)[1] if before else source.span(value)[0]
            end = source.span(after)[0] if after and not before else source.span(value)[1]
            if not _is_bool(value.value):  # its negation is a mutant
                yield Change(start, end, "", KEYWORD)


def _is_bool(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _name(call: ast.Call) -> str:
    """The last part of the name of a called function."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _is_placement(words: str) -> bool:
    """Whether a call moves a tensor to a device."""
    return re.search(r"\.to\((device|d|\"cpu\")\)$", words) is not None


OPERATORS = (_changes, _swaps, _orders, _calls)
