"""Cells of an executed notebook that are at fault without regard to the values that they show."""

import ast

from ci.judge.not_compared import IMAGES, compares_result
from ci.lesson.code import statements
from ci.lesson.node import NotebookNode


def first_incomplete_cell(notebook: NotebookNode) -> str:
    """The first code cell that did not run, or that raised an error without declaring it."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.strip():
            errors = [output for output in cell.outputs if output.output_type == "error"]
            if cell.execution_count is None or (errors and "raises" not in cell.metadata):
                return str(cell.id)
    return ""


def first_figure_not_drawn(notebook: NotebookNode) -> str:
    """The first code cell tagged `figure` without an image, unless the next one is a figure too."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    figures = ["figure" in cell.metadata.get("tags", []) for cell in code]
    for cell, is_figure, continues in zip(code, figures, [*figures[1:], False], strict=True):
        drawn = any(IMAGES & output.get("data", {}).keys() for output in cell.outputs)
        if is_figure and not (drawn or continues or _only_defines(cell.source)):
            return str(cell.id)
    return ""


def _only_defines(source: str) -> bool:
    """Whether a cell contains nothing but functions and classes."""
    body = statements(source)
    return bool(body) and all(isinstance(s, ast.FunctionDef | ast.ClassDef) for s in body)


def first_unchecked_cell(notebook: NotebookNode) -> str:
    """The first cell whose shown value is neither a check nor a given."""
    for cell in notebook.cells:
        shows = any(out.output_type == "execute_result" for out in cell.get("outputs", []))
        if shows and not compares_result(cell):
            return str(cell.id)
    return ""
