"""The editions of the course page, the formats of its handouts, and where they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.judge.outcome import Outcome
from ci.lesson.lesson import Lesson
from ci.lesson.node import NotebookNode

Note = Mapping[str, str]  # a text in each language

FORMATS = ("html", "pdf", "ipynb")  # of the files of a handout


@dataclass(frozen=True)
class Edition:
    """An edition of the course page: students get a blank where instructors get its solution.

    `folder` is its folder in build/, `archive` the archive in it, and `workbook` the last word in
    the name of a lesson's notebook of exercises. They differ, so that editions can't be mixed up.
    """

    folder: str
    archive: str
    workbook: str
    solutions: bool

    def hidden(self, lesson: Lesson) -> dict[str, str]:
        """The cells of solutions that this edition hides, each with the cell of its blank."""
        exercises = () if self.solutions else lesson.exercises
        return {exercise.solution: exercise.blank.id for exercise in exercises}

    def cells(self, lesson: Lesson, executed: Sequence[NotebookNode]) -> list[NotebookNode]:
        """The cells of an executed notebook, with blanks in the place of hidden solutions."""
        exercises = () if self.solutions else lesson.exercises
        blanks = {exercise.solution: exercise.blank for exercise in exercises}
        return [blanks.get(cell.id, cell) for cell in executed]

    def workbook_name(self, outcome: Outcome) -> str:
        """The file name of the notebook of a lesson's exercises; empty if there are no exercises,
        or if the expected value of one is not known."""
        names = [exercise.name for exercise in outcome.run.lesson.exercises]
        if not names or any(name not in outcome.answers for name in names):
            return ""
        return f"{outcome.run.lesson.name}_{self.workbook}.ipynb"


STUDENTS = Edition("handouts", "handouts.zip", "exercises", solutions=False)
INSTRUCTORS = Edition("instructors", "instructors.zip", "solutions", solutions=True)
EDITIONS = (STUDENTS, INSTRUCTORS)


def index_name(language: str) -> str:
    """The file of the course page in one language."""
    return "index.html" if language == "en" else f"index.{language}.html"


def run_folder(outcome: Outcome) -> Path:
    """Where the handouts of a run are, below a page: at its top for the default parameters."""
    run = outcome.run
    return Path() if run.is_default else Path(run.lesson.name, run.key)
