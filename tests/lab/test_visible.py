"""What containers see of the lessons."""

import os
from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.lab.visible import visible


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    """A folder of lessons with a script, data, and expected values."""
    folder = tmp_path / "lessons"
    for name in ("01_small.py", "data/table.csv", "expected/01_small.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_data_is_visible(lessons: Path) -> None:
    """Scripts and expected values are not."""
    assert visible(lessons) == [lessons / "data"]


def test_a_link_within_the_lessons_is_visible(lessons: Path) -> None:
    """A container sees the same files by another name."""
    (lessons / "table.csv").symlink_to("data/table.csv")
    assert lessons / "table.csv" in visible(lessons)


@pytest.mark.parametrize("target", ["expected", "expected/01_small.py", "nowhere", "link"])
def test_a_link_to_expected_values_or_nowhere_is_not_visible(lessons: Path, target: str) -> None:
    """Dangling and circular links do no harm."""
    (lessons / "link").symlink_to(target)
    assert visible(lessons) == [lessons / "data"]


@pytest.mark.parametrize("target", ["..", "/etc", "../../secret", "/"])
def test_a_link_that_leaves_the_lessons_is_refused(lessons: Path, target: str) -> None:
    """Git carries links, so anyone who proposes a change could open the machine."""
    (lessons.parents[1] / "secret").touch()
    (lessons / "peek").symlink_to(target)
    with pytest.raises(CourseError, match=r"peek links to .*, which the lab does not show"):
        visible(lessons)


def test_a_pipe_is_refused(lessons: Path) -> None:
    """Reading it would hang."""
    os.mkfifo(lessons / "pipe")
    with pytest.raises(CourseError, match="pipe is neither a file nor a folder: remove it"):
        visible(lessons)
