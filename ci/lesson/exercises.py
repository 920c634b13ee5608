"""Exercises: a task, a blank that students fill in, and a solution that proves it solvable.

In a script the blank stands right before its solution. The solution is executed and checked like
any other cell. The blank is never executed: the reader moves it from the notebook to `Exercise`.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ci.lesson import header, marks, script
from ci.lesson.code import nodes
from ci.lesson.fault import ScriptError, misspelt
from ci.lesson.node import NotebookNode

EXERCISE, SOLUTION, SETUP = "exercise", "solution", "setup"
PREDICT = "predict"  # a cell whose output a reader predicts before seeing it
BLANKS = "blanks"  # the key of an executed notebook's metadata for what the blanks show
SPOKEN = {tokenize.COMMENT, tokenize.STRING}
SHORTEST_HINT = 4  # characters: shorter code, such as n/2, may be in a comment by chance
TAGS = [EXERCISE, SOLUTION, SETUP, PREDICT, "parameters", "figure"]


@dataclass(frozen=True)
class Exercise:
    """An exercise of a lesson, named like its check; `prose` and `solution` are ids of cells."""

    name: str
    prose: tuple[str, ...]
    blank: NotebookNode
    solution: str


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def extract(notebook: NotebookNode) -> tuple[Exercise, ...]:
    """The exercises of a lesson's notebook, whose blanks are removed from it.

    Raises ScriptError unless each exercise is a task, a blank and a solution, one after the other,
    where blank and solution end in the name of the same check.
    """
    exercises = tuple(_exercises(notebook.cells))
    blanks = {exercise.blank.id for exercise in exercises}
    notebook.cells = [cell for cell in notebook.cells if cell.id not in blanks]
    return exercises


def validate_tags(cell: NotebookNode) -> None:
    """Raise ScriptError for a misspelt tag, or one that the cell cannot have."""
    found, line = {*tags(cell)}, cell.metadata.line
    for tag in found - {*TAGS}:
        if match := misspelt(tag, TAGS):  # a misspelt tag could show a solution to students
            raise ScriptError(f"unknown tag '{tag}'; did you mean '{match}'?", line)
    if cell.cell_type != "code" and {SOLUTION, SETUP} & found:
        raise ScriptError("only a code cell can be a solution or a setup", line)
    if SETUP in found and "raises" in cell.metadata:
        message = "a setup cell must not raise, because exercises use its variables: remove raises="
        raise ScriptError(message, line)


def _exercises(cells: Sequence[NotebookNode]) -> Iterator[Exercise]:
    prose: list[NotebookNode] = []
    blank: NotebookNode | None = None
    for cell in cells:
        line = cell.metadata.line
        if blank is not None:
            _validate(blank, cell)
            yield Exercise(cell.metadata.check, tuple(task.id for task in prose), blank, cell.id)
            prose, blank = [], None
        elif SOLUTION in tags(cell):
            message = 'a solution without a blank: put a cell with tags=["exercise"] before it'
            raise ScriptError(message, line)
        elif EXERCISE in tags(cell) and cell.cell_type != "code":
            prose.append(cell)
        elif EXERCISE in tags(cell):
            if not prose:
                message = 'a blank without a task: put text with tags=["exercise"] before it'
                raise ScriptError(message, line)
            blank = cell
    if blank is not None:
        raise _lacks_solution(blank)
    if prose:
        message = 'a task without a blank: put a code cell with tags=["exercise"] after it'
        raise ScriptError(message, prose[0].metadata.line)


def _lacks_solution(blank: NotebookNode) -> ScriptError:
    message = 'a blank without a solution: put a code cell with tags=["solution"] right after it'
    return ScriptError(message, blank.metadata.line)


def _validate(blank: NotebookNode, solution: NotebookNode) -> None:
    """Raise ScriptError unless the two are a blank and its solution."""
    line = blank.metadata.line
    if solution.cell_type != "code" or SOLUTION not in tags(solution):
        raise _lacks_solution(blank)
    if {"check", "given", "raises", "lang"} & blank.metadata.keys():
        message = "a blank is not executed: only tags= is allowed here, check= is for its solution"
        raise ScriptError(message, line)
    if {"given", "raises"} & solution.metadata.keys() or "check" not in solution.metadata:
        message = "a solution must have check=, and neither given= nor raises="
        raise ScriptError(message, solution.metadata.line)
    name = solution.metadata.check
    for cell in (blank, solution):
        if cell.source.rstrip().split("\n")[-1] != name:
            message = f"the last line of a blank and of its solution must be their check, `{name}`"
            raise ScriptError(message, cell.metadata.line)
    code = ast.Module(script.parse_code(blank.source, line, f"the blank of '{name}'"), [])
    if not any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(code)):
        raise ScriptError("the blank has no `...`: write it where students fill in code", line)
    if (offset := _hint(blank.source, solution.source)) is not None:
        message = (
            "the blank has a part of its solution in a comment or string: describe it in words"
        )
        raise ScriptError(message, line + offset)


def _hint(blank: str, solution: str) -> int | None:
    """The line of a blank, from 0, with a comment or string that contains code of the solution."""
    tokens = list(tokenize.generate_tokens(io.StringIO(blank).readline))
    code = _dense(*(token.string for token in tokens if token.type not in SPOKEN))
    spoken = [(t.start[0] - 1, _dense(t.string)) for t in tokens if t.type in SPOKEN]
    text = "".join(words for _, words in spoken)
    parts = map(_dense, _parts(solution)) if len(text) >= SHORTEST_HINT else ()
    for part in parts:
        if len(part) >= SHORTEST_HINT and part in text and part not in code:
            return next((line for line, words in spoken if part in words), spoken[0][0])
    return None


def _parts(solution: str) -> Iterator[str]:
    """The statements of a solution, and what they assign."""
    for node in nodes(solution):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr):
            yield ast.get_source_segment(solution, node) or ""
            if node.value and not isinstance(node.value, ast.Name | ast.Constant):
                yield ast.get_source_segment(solution, node.value) or ""


def _dense(*texts: str) -> str:
    """Texts without white space, and without the signs of comments."""
    return re.sub(r"[\s#]", "", "".join(texts))


def without_solutions(text: str) -> str:
    """A lesson's script as students get it; the same text if it has no solution."""
    lines = script.split_lines(text)
    kept, end = lines[:], header.read(lines)[1]
    for block in reversed(list(script.blocks(lines, end))):
        if block.mark is not None:
            _, attributes, _ = marks.read(lines[block.mark], 1, False)
            if SOLUTION in attributes.get("tags", []):
                del kept[block.mark : block.start + len(block.lines)]
    if kept[-1:] != [""]:
        kept.append("")
    return text if len(kept) == len(lines) else "\n".join(kept)
