"""The notebook of a lesson's exercises: what it holds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_output

from ci.handout import notebook
from ci.handout.editions import EDITIONS, INSTRUCTORS, Edition
from ci.handout.handout import Handout, prepare
from ci.judge import verdicts
from ci.judge.outcome import Answer, Outcome
from ci.lesson import oracle
from ci.lesson.expect import Rule
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.lesson.value import expected_value
from ci.plan.planner import Run
from tests.conftest import EXERCISE, GRADIENT, HALVES, HEADER, ORACLE, Read


def handed_out(
    lesson: Lesson, parameters: Mapping[str, Value] | None = None, **changes: Any
) -> Handout:
    """The handout of a run of the lesson, with the expected values of its exercises."""
    values = parameters or lesson.defaults
    answers = verdicts.exercise_answers(lesson, oracle.load(lesson), values)
    outcome = Outcome(Run(lesson, values), "verified", notebook=lesson.notebook, answers=answers)
    return replace(Handout(outcome, {}), **changes)


def write(made: Handout, folder: Path) -> list[Path]:
    """Write its workbook in both languages; the paths."""
    paths = [folder / f"{language}.ipynb" for language in ("en", "zh")]
    folder.mkdir(exist_ok=True)
    for path in paths:
        path.write_text(notebook.text_of(notebook.workbook(made, path.stem)), "utf-8")
    return paths


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with an exercise in it."""
    return read(GRADIENT + EXERCISE, expected=ORACLE + HALVES)


def sources(made: Handout, language: str = "en") -> dict[str, str]:
    """The cells of its workbook, by id."""
    return {cell.id: cell.source for cell in notebook.workbook(made, language).cells}


def test_it_has_what_blanks_need_and_nothing_else_of_the_lesson(lesson: Lesson) -> None:
    """Title, the check's own code, parameters, setup, then task, blank and check."""
    cells = notebook.workbook(handed_out(lesson), "en").cells
    assert [cell.source.splitlines()[0] for cell in cells if cell.id != "check-answer"] == [
        "# A lesson · Exercises",
        "size: int = 4  # length of the vector",
        "import numpy as np",
        "### 1. Halves",
        "halves = ...",
        "check_answer(",
    ]


def test_a_check_expects_the_values_of_the_run(lesson: Lesson) -> None:
    """For its parameters, which are in the notebook, with all digits."""
    texts = [*sources(handed_out(lesson, parameters={"size": 2})).values()]
    assert "size: int = 2  # length of the vector" in texts
    assert texts[-1] == (
        'check_answer("halves", halves, np.array([0.0, 0.5], dtype="float64"), dtype="float64")'
    )


def test_each_language_has_its_own_words(lesson: Lesson) -> None:
    """Title, task, and the messages of the check."""
    chinese = "\n".join(sources(handed_out(lesson), "zh").values())
    assert "# 一课 · 练习" in chinese
    assert "把 0 到 size - 1 减半。" in chinese
    assert 'language="zh"' in chinese
    assert "Halve 0" not in chinese


def test_instructors_get_the_solution(lesson: Lesson) -> None:
    """In the place of the blank, in a file of another name."""
    made = handed_out(lesson, edition=INSTRUCTORS)
    assert made.workbook == "01_small_solutions.ipynb"
    assert "onehalf = 0.5  # hiddenway\nhalves = onehalf * np.arange(size)\nhalves" in (
        sources(made).values()
    )
    assert "halves = ...\nhalves" not in sources(made).values()


def test_a_draft_says_so_in_its_exercises_too(lesson: Lesson) -> None:
    """Below the title."""
    made = handed_out(lesson, notes=[{"en": "Not verified.", "zh": "未经验证。"}])
    assert "> **未经验证。**" in sources(made, "zh")["title"]


def test_it_runs_on_the_lesson_s_own_device(read: Read) -> None:
    """Even if the course ran on a GPU, since students may have none."""
    header = HEADER.replace("size: int", 'device: str = "cpu"\nsize: int')
    lesson = read(GRADIENT + EXERCISE, header=header, expected=ORACLE + HALVES)
    made = handed_out(lesson, parameters={"device": "cuda:0", "size": 2})
    assert 'device: str = "cpu"\nsize: int = 2  # length of the vector' in sources(made).values()


@pytest.mark.parametrize("edition", EDITIONS)
def test_its_files_are_valid_and_reproducible(
    lesson: Lesson, tmp_path: Path, edition: Edition
) -> None:
    """Ids do not change from one publication to the next."""
    made = handed_out(lesson, edition=edition)
    paths = write(made, tmp_path)
    before = [path.read_bytes() for path in paths]
    assert made.workbook == f"01_small_{edition.workbook}.ipynb"
    for path in paths:
        found = nbformat.read(path, as_version=4)
        nbformat.validate(found)
        assert (found.nbformat, found.nbformat_minor) == (4, 5)
    assert [path.read_bytes() for path in write(made, tmp_path)] == before


def test_a_lesson_without_exercises_has_none(read: Read) -> None:
    """Nor has a lesson with exercises whose expected values are not known."""
    assert handed_out(read(GRADIENT, expected=ORACLE)).workbook == ""
    made = handed_out(read(GRADIENT + EXERCISE, expected=ORACLE + HALVES))
    assert made.workbook
    assert replace(made, outcome=replace(made.outcome, answers={})).workbook == ""


@pytest.mark.parametrize(
    "value",
    [
        np.array([1 / 3, np.nan, -np.inf, 5e-324]),
        np.array([[1 + 2j, complex(0, np.inf)]]),
        np.zeros((2, 0), dtype="float32"),
        np.float32(0.1),
        np.array(True),
        {"a": [1, 2.5, float("-inf")], "b": ("text", True), "c": {}},
    ],
)
def test_an_expected_value_keeps_all_of_its_digits(value: Any) -> None:
    """Its source evaluates to the same value, bit by bit."""
    expected = expected_value(value)
    again = expected_value(eval(notebook.literal(expected), {"np": np}))
    for one, other in zip(expected.leaves(), again.leaves(), strict=True):
        assert (one.kind, one.dtype) == (other.kind, other.dtype)
        np.testing.assert_array_equal(one.value, other.value)
        assert np.shape(one.value) == np.shape(other.value)


def test_a_check_has_the_rule_of_its_oracle() -> None:
    """Its tolerance and dtype; defaults are left out."""
    answer = Answer(expected_value(1.5), Rule(rel=1e-3, abs=1e-6, why="rough", elementwise=True))
    assert notebook.check_call("x", answer, {}, "en") == (
        'check_answer("x", x, 1.5, rel=0.001, absolute=1e-06, elementwise=True)'
    )
    for value, option in (
        (np.ones(1), ', dtype="float64"'),
        (1.5, ""),
        (np.ones(1, "float32"), ""),
    ):
        expected = expected_value(value)
        call = notebook.check_call("x", Answer(expected, Rule()), {"dtype": "float64"}, "en")
        assert call == f'check_answer("x", x, {notebook.literal(expected)}{option})'


def test_the_executed_cells_are_numbered_from_1(lesson: Lesson) -> None:
    """Cells that only the course needs leave no gap."""
    made = handed_out(lesson)
    assert made.outcome.notebook
    code = [cell for cell in made.outcome.notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        cell.execution_count = 2 * number + 3
        cell.outputs = [new_output("execute_result", {"text/plain": "1"}, execution_count=9)]
    executed = [cell for cell in prepare(made, "en").cells if cell.get("execution_count")]
    code = executed
    assert [cell.execution_count for cell in executed] == [*range(1, len(code) + 1)]
    assert [c.outputs[0].execution_count for c in executed] == [c.execution_count for c in executed]
