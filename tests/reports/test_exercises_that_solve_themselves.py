"""A blank that passes its check, or tells its solution, is a fault: nothing is published.

The cases are from this project's own reviews.
"""

import pytest

from ci.errors import CourseError
from ci.judge import verdicts
from ci.judge.outcome import Outcome
from ci.lesson import oracle, reader
from ci.plan import planner
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, Read, executions, write_lesson

BLANK = "halves = ...\nhalves"
HINTS = {
    "in a comment": "# halves = onehalf * np.arange(size)\nhalves = ...\nhalves",
    "beside the blank": "halves = ...  # onehalf*np.arange( size )\nhalves",
    "in a string": '"""\nonehalf * np.arange(size)\n"""\nhalves = ...\nhalves',
    "in two comments": "# onehalf *\n# np.arange(size)\nhalves = ...\nhalves",
    "another statement": "# onehalf = 0.5\nhalves = ...\nhalves",
}
SETUP = '# %% tags=["setup"]\nimport numpy as np\n'
# Name: the blank, what is added to the setup cell, the fault, and the first line of its cell.
EXECUTED = {
    "right before the ellipsis": (
        "halves = np.arange(size) / 2\n...\nhalves",
        "",
        "the blank of 'halves' shows the expected value: remove its solution",
        "halves = np.arange(size) / 2",
    ),
    "right by the setup": (
        "...\nhalves",
        "halves = np.arange(size) / 2\n",
        "the blank of 'halves' shows the expected value: remove its solution",
        "...",
    ),
    "right by the lesson only": ("...\nhalves = onehalf * np.arange(size)\nhalves", "", "", ""),
    "ends its process": (
        "import os\nos._exit(0)\nhalves = ...\nhalves",
        "",
        "in the exercises' notebook, which has only the parameters and the setup: its kernel ended",
        "import os",
    ),
    "never ends": (
        "import time\nwhile ...:\n    time.sleep(1)\nhalves",
        "",
        "in the exercises' notebook, which has only the parameters and the setup: not done within",
        "import time",
    ),
    "a setup that needs the lesson": (
        BLANK,
        "quarter = factor / 16\n",
        "in the exercises' notebook, which has only the parameters and the setup: NameError: name",
        "import numpy as np",
    ),
    "wrong": ("halves = np.arange(size) / 3\n...\nhalves", "", "", ""),
}


@pytest.mark.parametrize("hint", HINTS)
def test_a_blank_that_tells_its_solution_is_a_fault(read: Read, hint: str) -> None:
    """With the line of the comment."""
    line = read(GRADIENT + EXERCISE).exercises[0].blank.metadata.line
    message = f"01_small.py:{line}: the blank has a part of its solution in a comment or string"
    with pytest.raises(CourseError, match=message):
        read(GRADIENT + EXERCISE.replace(BLANK, HINTS[hint]))


@pytest.mark.parametrize("words", ["np.arange(size) has the numbers to halve", "size / 2", "half"])
def test_a_comment_may_describe_the_task(read: Read, words: str) -> None:
    """Names, and code that is not in the solution."""
    assert read(GRADIENT + EXERCISE.replace(BLANK, f"halves = ...  # {words}\nhalves")).exercises


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Each lesson of EXECUTED, executed beside the others and judged."""
    folder = tmp_path_factory.mktemp("blanks")
    lessons = {}
    for number, (name, (blank, setup, _, _)) in enumerate(EXECUTED.items(), start=1):
        cells = "# %%\nfactor = 4\n" + GRADIENT + EXERCISE.replace(BLANK, blank)
        cells = cells.replace(SETUP, SETUP + setup)
        path = write_lesson(folder, cells, expected=ORACLE + HALVES, name=f"0{number}_small")
        lessons[name] = reader.read(path)
    runs = planner.runs(list(lessons.values()), [], [])
    done = {e.run.lesson.name: e for e in executions(runs, folder / "runs", slots=2)}
    return {
        name: verdicts.judge(done[lesson.name], oracle.load(lesson))
        for name, lesson in lessons.items()
    }


@pytest.mark.kernel
@pytest.mark.parametrize("name", EXECUTED)
def test_a_blank_that_passes_is_a_fault(outcomes: dict[str, Outcome], name: str) -> None:
    """It is executed as in the students' notebook: with the parameters and the setup alone."""
    *_, fault, first_line = EXECUTED[name]
    outcome = outcomes[name]
    assert outcome.green == (not fault), outcome.reason
    assert outcome.reason.startswith(fault)
    if fault:
        script = outcome.run.lesson.path.read_text().splitlines()
        assert script[outcome.run.lesson.line(outcome.cell) - 1] == first_line
    assert "blanks" not in outcome.run.lesson.notebook.metadata
