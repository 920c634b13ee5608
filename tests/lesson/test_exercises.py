"""Exercises: how a lesson declares them, and which cells students get."""

import re

import jupytext
import pytest

from ci.errors import CourseError
from ci.lesson import exercises
from tests.conftest import EXERCISE, GRADIENT, Read


def test_a_blank_is_removed_from_the_notebook(read: Read) -> None:
    """The notebook to execute keeps the task and the solution."""
    lesson = read(EXERCISE)
    [exercise] = lesson.exercises
    cells = {cell.id: cell for cell in lesson.notebook.cells}
    assert exercise.blank.source == "halves = ...\nhalves"
    assert exercise.blank.id not in cells
    assert cells[exercise.solution].metadata.check == "halves"
    assert [cells[name].metadata.lang for name in exercise.prose] == ["en", "zh"]


def test_a_blank_knows_its_line(read: Read) -> None:
    """Its faults are reported with the right line."""
    lesson = read(EXERCISE)
    line = lesson.line(lesson.exercises[0].blank.id)
    assert lesson.path.read_text().splitlines()[line - 1] == "halves = ..."


def test_exercises_keep_their_order(read: Read) -> None:
    """Each exercise has the task after the previous exercise."""
    second = EXERCISE[EXERCISE.index("# %% [markdown]") :].replace("halves", "others")
    first, other = read(EXERCISE + GRADIENT + second).exercises
    assert (first.name, other.name) == ("halves", "others")
    assert len(other.prose) == 2
    assert not set(first.prose) & set(other.prose)


SOLUTION = '# %% tags=["solution"] check="halves"\n'
BAD = {  # message: what to replace, by what
    "a blank without a solution: put a code cell": (SOLUTION, "# %%\nsize;\n" + SOLUTION),
    "a blank without a solution": (EXERCISE[EXERCISE.index(SOLUTION) :], ""),
    "a solution without a blank": (
        '# %% tags=["exercise"]\nhalves = ...\nhalves\n',
        "",
    ),
    "a blank without a task": ('lang="en" tags=["exercise"]', 'lang="en"'),
    "a task without a blank": (
        EXERCISE[EXERCISE.index('# %% tags=["exercise"]') :],
        "",
    ),
    "a solution must have check=": (' check="halves"', ""),
    "a solution must have check=, and neither": ('check="halves"', 'given="halves"'),
    "a solution must have check=, and neither given= nor raises=": (
        'check="halves"',
        'check="halves" raises="TypeError"',
    ),
    "the last line of a blank .* `halves`": ("...\nhalves\n", "...\nhalves  # look\n"),
    "the last line .* of its solution": ("(size)\nhalves\n", "(size)\nhalves + 1\n"),
    "the blank has no `...`": ("halves = ...", "halves = 0  # ..."),
    "the blank of 'halves' is not plain Python": ("halves = ...", "halves = = ..."),
    "a blank is not executed": ('tags=["exercise"]\nhalves', 'tags=["exercise"] check="h"\nhalves'),
    "unknown tag 'solutoin'; did you mean 'solution'": ('"solution"', '"solutoin"'),
    "only a code cell can be a solution": (
        '# %% tags=["setup"]\nimport numpy as np',
        '# %% [markdown] tags=["setup"]\n# words',
    ),
    "a setup cell must not raise": ('tags=["setup"]', 'tags=["setup"] raises="NameError"'),
}


@pytest.mark.parametrize("message", BAD)
def test_a_malformed_exercise_is_reported(read: Read, message: str) -> None:
    """The reader reports file and line, before anything runs."""
    old, new = BAD[message]
    cells = EXERCISE.replace(old, new)
    if message == "a blank without a task":  # neither language has it
        cells = cells.replace('lang="zh" tags=["exercise"]', 'lang="zh"')
    assert cells != EXERCISE
    with pytest.raises(CourseError, match=rf"lessons/01_small\.py:\d+: .*{message}"):
        read(cells)


def test_tags_must_be_a_list(read: Read) -> None:
    """A string would be read letter by letter."""
    with pytest.raises(CourseError, match=r"lessons/01_small\.py:34: tags='solution' must be"):
        read(EXERCISE.replace('tags=["solution"]', 'tags="solution"'))


def test_a_students_script_has_the_blank_and_not_the_solution(read: Read) -> None:
    """All other cells stay unchanged."""
    text = read(EXERCISE + GRADIENT).path.read_text()
    handed_out = exercises.without_solutions(text)
    before = [cell.source for cell in jupytext.reads(text, fmt="py:percent").cells]
    after = [cell.source for cell in jupytext.reads(handed_out, fmt="py:percent").cells]
    assert after == [source for source in before if "onehalf" not in source]
    assert not re.search("onehalf|hiddenway|solution", handed_out)
    assert "halves = ..." in handed_out


def test_a_script_without_solutions_is_handed_out_unchanged(read: Read) -> None:
    """Not a byte changes, so that students' copies need no update."""
    text = read(GRADIENT).path.read_text()
    assert exercises.without_solutions(text) == text
