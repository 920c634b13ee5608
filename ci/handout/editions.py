"""The two editions of the course page: students get a blank where instructors get its solution."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from ci.lesson.lesson import Lesson


@dataclass(frozen=True)
class Edition:
    """One edition: `folder` below build/, `archive` in it, and `workbook`, what a lesson's notebook
    of exercises is called there. Each is a name of its own, so that the two can't be mixed up."""

    folder: str
    archive: str
    workbook: str
    solutions: bool


STUDENTS = Edition("handouts", "handouts.zip", "exercises", solutions=False)
INSTRUCTORS = Edition("instructors", "instructors.zip", "solutions", solutions=True)
EDITIONS = (STUDENTS, INSTRUCTORS)


def cells(lesson: Lesson, executed: Sequence[NotebookNode], edition: Edition) -> list[NotebookNode]:
    """The cells of an executed notebook as `edition` has them: students get the blanks."""
    blanks = {} if edition.solutions else {e.solution: e.blank for e in lesson.exercises}
    return [blanks.get(cell.id, cell) for cell in executed]


def hidden(lesson: Lesson, edition: Edition) -> dict[str, str]:
    """The solutions that `edition` does not show, by the ids of their cells: those of blanks."""
    return {} if edition.solutions else {e.solution: e.blank.id for e in lesson.exercises}


def workbook(lesson: Lesson, answers: Container[str], edition: Edition) -> str:
    """The file name of the notebook of a lesson's exercises; empty where there is none, or where
    one of them has no answer."""
    names = [exercise.name for exercise in lesson.exercises]
    if not names or any(name not in answers for name in names):
        return ""
    return f"{lesson.name}_{edition.workbook}.ipynb"
