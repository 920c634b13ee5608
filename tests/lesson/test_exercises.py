"""Exercises: what a lesson must have of each, and what a student gets."""

import re

import jupytext
import pytest

from ci.errors import CourseError
from ci.lesson import exercises
from tests.conftest import EXERCISE, GRADIENT, Read


def test_a_blank_is_beside_the_lesson_and_not_in_it(read: Read) -> None:
    """The notebook that is executed has the task and the solution."""
    lesson = read(EXERCISE)
    [exercise] = lesson.exercises
    cells = {cell.id: cell for cell in lesson.notebook.cells}
    assert exercise.blank.source == "halves = ...\nhalves"
    assert exercise.blank.id not in cells
    assert cells[exercise.solution].metadata.check == "halves"
    assert [cells[name].metadata.lang for name in exercise.prose] == ["en", "zh"]


def test_a_blank_knows_its_line(read: Read) -> None:
    """Faults in it are found where it stands."""
    lesson = read(EXERCISE)
    line = lesson.line(lesson.exercises[0].blank.id)
    assert lesson.path.read_text().splitlines()[line - 1] == "halves = ..."


def test_exercises_keep_their_order(read: Read) -> None:
    """Each has the prose since the one before."""
    second = EXERCISE[EXERCISE.index("# %% [markdown]") :].replace("halves", "others")
    first, other = read(EXERCISE + GRADIENT + second).exercises
    assert (first.name, other.name) == ("halves", "others")
    assert len(other.prose) == 2
    assert not set(first.prose) & set(other.prose)


SOLUTION = '# %% tags=["solution"] check="halves"\n'
BAD = {  # message: what to replace, by what
    "a blank without a solution right after it": (SOLUTION, "# %%\nsize;\n" + SOLUTION),
    "a blank without a solution right after": (EXERCISE[EXERCISE.index(SOLUTION) :], ""),
    "a solution stands right after its blank": (
        '# %% tags=["exercise"]\nhalves = ...\nhalves\n',
        "",
    ),
    "a blank without a task": ('lang="en" tags=["exercise"]', 'lang="en"'),
    "a task without a blank": (
        EXERCISE[EXERCISE.index('# %% tags=["exercise"]') :],
        "",
    ),
    "a solution has a check=": (' check="halves"', ""),
    "a solution has a check= and no given": ('check="halves"', 'given="halves"'),
    "a solution has a check= and no given= or raises=": (
        'check="halves"',
        'check="halves" raises="TypeError"',
    ),
    "the last line of a blank .* `halves`": ("...\nhalves\n", "...\nhalves  # look\n"),
    "the last line .* of its solution": ("(size)\nhalves\n", "(size)\nhalves + 1\n"),
    "the blank has no `...`": ("halves = ...", "halves = 0  # ..."),
    "'halves' is not plain Python": ("halves = ...", "halves = = ..."),
    "a blank is not executed": ('tags=["exercise"]\nhalves', 'tags=["exercise"] check="h"\nhalves'),
    "unknown tag 'solutoin'; did you mean 'solution'": ('"solution"', '"solutoin"'),
    "only a code cell is a solution": (
        '# %% tags=["setup"]\nimport numpy as np',
        '# %% [markdown] tags=["setup"]\n# words',
    ),
    "a setup cell raises nothing": ('tags=["setup"]', 'tags=["setup"] raises="NameError"'),
}


@pytest.mark.parametrize("message", BAD)
def test_an_exercise_that_is_not_whole_is_named(read: Read, message: str) -> None:
    """With file and line, before anything runs."""
    old, new = BAD[message]
    cells = EXERCISE.replace(old, new)
    if message == "a blank without a task":  # neither language has it
        cells = cells.replace('lang="zh" tags=["exercise"]', 'lang="zh"')
    assert cells != EXERCISE
    with pytest.raises(CourseError, match=rf"lessons/01_small\.py:\d+: .*{message}"):
        read(cells)


def test_tags_that_are_no_list_are_refused(read: Read) -> None:
    """They would be read letter by letter."""
    with pytest.raises(CourseError, match=r"lessons/01_small\.py: .*'solution' is not of type"):
        read(EXERCISE.replace('tags=["solution"]', 'tags="solution"'))


def test_a_student_s_script_has_the_blank_and_nothing_of_the_solution(read: Read) -> None:
    """All other cells stay as they are."""
    text = read(EXERCISE + GRADIENT).path.read_text()
    handed_out = exercises.without_solutions(text)
    before = [cell.source for cell in jupytext.reads(text, fmt="py:percent").cells]
    after = [cell.source for cell in jupytext.reads(handed_out, fmt="py:percent").cells]
    assert after == [source for source in before if "onehalf" not in source]
    assert not re.search("onehalf|hiddenway|solution", handed_out)
    assert "halves = ..." in handed_out


def test_a_script_without_solutions_is_handed_out_as_it_is(read: Read) -> None:
    """To the byte, so that nobody's copy is renewed for nothing."""
    text = read(GRADIENT).path.read_text()
    assert exercises.without_solutions(text) == text
