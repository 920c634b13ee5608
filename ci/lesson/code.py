"""The code of a cell, which is no plain Python if it has a magic of IPython."""

import ast
import contextlib
import warnings
from collections.abc import Iterator


def statements(source: str) -> list[ast.stmt]:
    """The statements of a cell; none if it is not plain Python."""
    unreadable = (SyntaxError, ValueError, RecursionError, MemoryError)
    with contextlib.suppress(*unreadable), warnings.catch_warnings(action="ignore"):
        return ast.parse(source).body
    return []


def nodes(source: str) -> Iterator[ast.AST]:
    """The statements of a cell and all of their parts."""
    return ast.walk(ast.Module(statements(source), []))


def imported_modules(source: str) -> Iterator[str]:
    """The modules that a cell imports, by the first parts of their names."""
    for node in nodes(source):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
