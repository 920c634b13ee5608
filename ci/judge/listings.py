"""Cells that print source code of the course, which handouts show as code.

A cell is a listing if it only prints what `inspect.getsource` returns, and if the course contains
each function and class that it printed.
"""

import ast
from textwrap import dedent

from ci.lesson.code import statements
from ci.lesson.lesson import Lesson
from ci.lesson.node import NotebookNode

LISTING = "listing"  # the key of a cell's metadata


def mark_listings(notebook: NotebookNode, lesson: Lesson) -> None:
    """Mark the listings among the executed cells of a lesson's notebook."""
    found = [cell for cell in notebook.cells if cell.cell_type == "code" and _only_lists(cell)]
    if not found:
        return
    modules = sorted(lesson.path.parent.rglob("*.py"))
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    texts += [path.read_text(encoding="utf-8", errors="replace") for path in modules]
    course = "\n".join(map(_without_indentation, texts))
    for cell in found:
        if all(part in course for part in _definitions(_printed(cell))):
            cell.metadata[LISTING] = True


def _only_lists(cell: NotebookNode) -> bool:
    """Whether a cell prints definitions by `inspect.getsource`, and nothing else."""
    found = statements(cell.source)
    only_prints = all(output.get("name") == "stdout" for output in cell.outputs)
    prints_source = bool(found) and all(map(_prints_source, found))
    return only_prints and prints_source and bool(_definitions(_printed(cell)))


def _printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs)


def _prints_source(statement: ast.stmt) -> bool:
    match statement:
        case ast.For(body=body, orelse=[]):
            return all(_prints_source(each) for each in body)
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[*values])) if values:
            return all(_is_source(value) for value in values)
    return False


def _is_source(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Attribute(attr="getsource") | ast.Name(id="getsource")):
            return True
    return False


def _definitions(printed: str) -> list[str]:
    """The functions and classes that a text consists of; none if it has anything else."""
    text = dedent(printed)
    found = statements(text)
    if not all(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in found):
        return []
    lines = text.split("\n")
    firsts = [min(part.lineno for part in (n, *n.decorator_list)) for n in found]  # type: ignore[attr-defined]
    ends = [node.end_lineno for node in found]
    parts = zip(firsts, ends, strict=True)
    return [_without_indentation("\n".join(lines[first - 1 : end])) for first, end in parts]


def _without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n"))
