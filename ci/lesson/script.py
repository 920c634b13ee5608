"""A lesson's script as text and as cells. Imports jupytext, which is slow, only when needed."""

import ast

from nbformat import NotebookNode

from ci.errors import CourseError


class ScriptError(Exception):
    """A fault in a script, in one of its lines or in its header."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line

    def in_file(self, name: str) -> CourseError:
        """The same fault with the name of the script: `lessons/03_autograd.py:41: …`."""
        return CourseError(f"{name}:{self.line}: {self}" if self.line else f"{name}: {self}")


def parse(text: str) -> NotebookNode:
    """The notebook of a script; its metadata and those of its cells hold header and attributes."""
    import jupytext

    notebook: NotebookNode = jupytext.reads(text, fmt="py:percent")
    return notebook


def write(notebook: NotebookNode) -> str:
    """The script that has these cells."""
    import jupytext

    return str(jupytext.writes(notebook, fmt="py:percent"))


def parse_code(source: str, line: int, subject: str) -> list[ast.stmt]:
    """The statements of the code that starts at `line`. Raises ScriptError about `subject`."""
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        at = line + (error.lineno or 1) - 1
        raise ScriptError(f"{subject} is not plain Python: {error.msg}", at) from None
