"""A lesson, and how to find and select the lessons of a folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ci.errors import CourseError, UsageError, suggest
from ci.lesson.exercises import Exercise
from ci.lesson.languages import LANGUAGES as LANGUAGES
from ci.lesson.marks import CELL_ATTRIBUTES as CELL_ATTRIBUTES
from ci.lesson.node import NotebookNode
from ci.lesson.parameters import Parameter, Value

NOT_IN_ADDRESSES = re.compile(r"""[#?%&,;:"'<>|*\\\x00-\x1f]""")
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Check:
    """A declared check of a lesson: what a cell shows, prints or raises."""

    name: str
    kind: Literal["value", "given", "raises", "stdout"]
    cell: str
    line: int
    raises: str = ""


@dataclass(frozen=True)
class Lesson:
    """A lesson as its script declares it. Its notebook is not executed and has no blanks.

    `prerequisites` are the names of the lessons that a reader should know.
    """

    path: Path
    digest: str
    notebook: NotebookNode
    titles: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    checks: tuple[Check, ...]
    exercises: tuple[Exercise, ...] = ()
    min_gpus: int = 0
    max_gpus: int = 1
    timeout_s: float | None = None
    unchecked_because: str | None = None
    languages: tuple[str, ...] = LANGUAGES
    prerequisites: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file name without `.py`."""
        return self.path.stem

    @property
    def defaults(self) -> dict[str, Value]:
        """The default values of its parameters."""
        return {name: parameter.default for name, parameter in self.parameters.items()}

    def location(self, cell: str) -> str:
        """File and line of a cell: `lessons/03_autograd.py:41`."""
        return f"{self.path.parent.name}/{self.path.name}:{self.line(cell)}"

    def line(self, cell: str) -> int:
        """The line of the script at which a cell begins; 1 for an unknown cell."""
        cells = [*self.notebook.cells, *(exercise.blank for exercise in self.exercises)]
        return next((c.metadata.line for c in cells if c.id == cell), 1)


def find_lessons(folder: Path) -> list[Path]:
    """The lesson scripts of a folder, in the order of their names, which is that of the course."""
    lessons = sorted(
        path
        for path in folder.glob("*")
        if path.suffix.lower() == ".py" and path.name[0] not in "._"
    )
    for path in lessons:
        if not path.is_file() or path.suffix != ".py":
            message = "is not a lesson: it must be a file, and its name must end in .py"
            raise CourseError(f"{folder.name}/{path.name} {message}; rename or remove it")
        if wrong := NOT_IN_ADDRESSES.search(path.name):
            message = f"has {wrong[0]!r} in its name, which is a part of the address of its page"
            raise CourseError(f"{folder.name}/{path.name} {message}; rename it")
    if not lessons:
        raise CourseError(f"{folder}: found no lessons (*.py)")
    return lessons


def select_lessons(paths: list[Path], words: str) -> list[Path]:
    """The lessons in a comma list of numbers and names; all lessons if the list is empty.

    `3`, `03`, `autograd` and `03_autograd` name the same lesson. Raises UsageError for a name that
    no lesson has.
    """
    selected = {_resolve(word.strip(), paths) for word in words.split(",") if word.strip()}
    if words and not selected:
        raise UsageError(f"--lessons {words}: names no lesson")
    return [path for path in paths if path in selected] if selected else paths


def _resolve(word: str, paths: list[Path]) -> Path:
    found = [path for path in paths if word in (path.stem, path.name)]
    found = found or [path for path in paths if _is_number_or_rest(word, path.stem)]
    if not found:
        raise UsageError(
            f"--lessons {word}: no such lesson{suggest(word, [path.stem for path in paths])}"
        )
    if len(found) > 1:
        names = " or ".join(path.stem for path in found)
        raise UsageError(f"--lessons {word}: could be {names}: write the whole name")
    return found[0]


def _is_number_or_rest(word: str, name: str) -> bool:
    number, _, rest = name.partition("_")
    same_number = word.isdecimal() and number.isdecimal() and int(word) == int(number)
    return same_number or word == rest
