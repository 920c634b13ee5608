"""`prerequisites` in a header: earlier lessons that a reader should know."""

from pathlib import Path

import pytest

from ci.lesson import reader
from ci.lesson.script import LessonError

HEADER = """\
# ---
# jupyter:
#   lesson:
#     prerequisites: {}
# ---
# %% [markdown]
# # A lesson
"""


def prerequisites(folder: Path, value: str) -> tuple[str, ...]:
    """Those of a lesson 03 beside two others."""
    for name in ("01_one.py", "02_two.py", "04_four.py"):
        (folder / name).write_text("# %%\n")
    path = folder / "03_three.py"
    path.write_text(HEADER.format(value))
    return reader.read(path).prerequisites


@pytest.mark.parametrize("value", ["[two, one]", "[01_one, two]", "[two, 02_two, one]"])
def test_lessons_are_named_with_or_without_their_number(tmp_path: Path, value: str) -> None:
    """Without it, a name stays right if the lessons get other numbers."""
    assert prerequisites(tmp_path, value) == ("01_one", "02_two")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("[tow]", "no lesson before this one is named 'tow'; did you mean 'two'?"),
        ("[four]", "no lesson before this one is named 'four'"),
        ("[three]", "no lesson before this one is named 'three'"),
        ("two", r"must be a list of lessons, as \[tensors, autograd\]"),
        ("[1]", r"must be a list of lessons, as \[tensors, autograd\]"),
    ],
)
def test_another_prerequisite_is_a_fault(tmp_path: Path, value: str, fault: str) -> None:
    """A lesson that does not exist, or one that comes later; a value of another type."""
    with pytest.raises(LessonError, match=f"03_three.py: header: prerequisites:? {fault}"):
        prerequisites(tmp_path, value)


def test_a_lesson_alone_looks_up_none(tmp_path: Path) -> None:
    """In the lab's containers, the other lessons are not there."""
    path = tmp_path / "03_three.py"
    path.write_text(HEADER.format("[two]"))
    assert reader.read(path, alone=True).prerequisites == ()
