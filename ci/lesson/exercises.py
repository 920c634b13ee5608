"""Exercises: a task, a blank that students fill in, and a solution that shows it can be done.

In a lesson the blank stands right before its solution. The solution is executed and checked like
any cell; the blank never runs with the lesson, so reading takes it out and keeps it beside.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from ci.errors import CourseError, suggest
from ci.lesson import script

EXERCISE, SOLUTION, SETUP = TAGS = ["exercise", "solution", "setup"]


@dataclass(frozen=True)
class Exercise:
    """An exercise of a lesson: `name` is its check, `prose` and `solution` are ids of cells."""

    name: str
    prose: tuple[str, ...]
    blank: NotebookNode
    solution: str


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def take(notebook: NotebookNode, place: str) -> tuple[Exercise, ...]:
    """Take the blanks out of a lesson's notebook, and return its exercises.

    Raises CourseError, with the line, for an exercise that is not whole: a task, a blank and a
    solution, one after the other, the last two ending in the bare name of the same check.
    """
    _refuse_odd_tags(notebook, place)
    exercises = tuple(_read(notebook, place))
    blanks = {exercise.blank.id for exercise in exercises}
    notebook.cells = [cell for cell in notebook.cells if cell.id not in blanks]
    return exercises


def _refuse_odd_tags(notebook: NotebookNode, place: str) -> None:
    """A misspelt tag could show a solution to students."""
    for cell in notebook.cells:
        at = f"{place}:{cell.metadata.line}"
        for tag in {*tags(cell)} - {*TAGS}:
            hint = suggest(tag, TAGS)
            if "did you mean" in hint:
                raise CourseError(f"{at}: unknown tag '{tag}'{hint}")
        if cell.cell_type != "code" and {SOLUTION, SETUP} & {*tags(cell)}:
            raise CourseError(f"{at}: only a code cell is a solution or a setup")
        if SETUP in tags(cell) and "raises" in cell.metadata:
            raise CourseError(
                f"{at}: a setup cell raises nothing: the exercises need what it makes"
            )


def _read(notebook: NotebookNode, place: str) -> Iterator[Exercise]:
    prose: list[NotebookNode] = []
    blank: NotebookNode | None = None
    for cell in notebook.cells:
        if blank is not None:
            name = _solution(cell, blank, place)
            yield Exercise(name, tuple(task.id for task in prose), blank, cell.id)
            prose, blank = [], None
        elif SOLUTION in tags(cell):
            raise CourseError(
                f"{place}:{cell.metadata.line}: a solution stands right after its blank, "
                'a cell with tags=["exercise"]'
            )
        elif EXERCISE in tags(cell):
            if cell.cell_type != "code":
                prose.append(cell)
                continue
            if not prose:
                raise CourseError(f"{place}:{cell.metadata.line}: a blank without a task before it")
            blank = cell
    if blank is not None or prose:
        line = (prose[0] if blank is None else blank).metadata.line
        what = "task without a blank" if blank is None else "blank without a solution right after"
        raise CourseError(f"{place}:{line}: a {what}")


def _solution(cell: NotebookNode, blank: NotebookNode, place: str) -> str:
    """The name of the check of a blank and of the cell after it, its solution."""
    at = f"{place}:{blank.metadata.line}"
    if cell.cell_type != "code" or SOLUTION not in tags(cell):
        raise CourseError(f"{at}: a blank without a solution right after it")
    if {"check", "given", "raises", "lang"} & blank.metadata.keys():
        raise CourseError(f"{at}: a blank is not executed: check= belongs to its solution")
    if {"given", "raises"} & cell.metadata.keys() or "check" not in cell.metadata:
        raise CourseError(
            f"{place}:{cell.metadata.line}: a solution has a check= and no given= or raises="
        )
    name = str(cell.metadata.check)
    for part in (blank, cell):
        if part.source.rstrip().splitlines()[-1:] != [name]:
            raise CourseError(
                f"{place}:{part.metadata.line}: the last line of a blank and of its solution is "
                f"the bare name of their check, `{name}`"
            )
    nodes = [*ast.walk(parse(blank, name, place))]
    if not any(isinstance(node, ast.Constant) and node.value is ... for node in nodes):
        raise CourseError(f"{at}: the blank has no `...` where the student is to write")
    return name


def parse(cell: NotebookNode, name: str, place: str) -> ast.Module:
    """The code of the cell that shows `name`. Raises CourseError where it is not Python."""
    try:
        return ast.parse(str(cell.source))
    except SyntaxError as error:
        line = cell.metadata.line + (error.lineno or 1) - 1
        raise CourseError(f"{place}:{line}: '{name}' is not plain Python: {error.msg}") from None


def without_solutions(text: str) -> str:
    """A lesson's script as a student gets it. It is the same text where it has no solution."""
    notebook = script.parse(text)
    cells = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]
    if len(cells) == len(notebook.cells):
        return text
    notebook.cells = cells
    return script.write(notebook)
