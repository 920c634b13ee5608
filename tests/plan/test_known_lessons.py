"""Lessons that were read before."""

import base64
import pickle
from pathlib import Path

from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import known_lessons


def test_a_known_lesson_equals_one_that_is_read(lesson: Lesson, tmp_path: Path) -> None:
    """An unchanged script is not read again."""
    parsed, remembered = (known_lessons.read(lesson.path, tmp_path) for _ in range(2))
    assert parsed == remembered == reader.read(lesson.path)


def test_a_damaged_or_outdated_record_of_a_lesson_is_unused(lesson: Lesson, tmp_path: Path) -> None:
    """The lesson comes from the script."""
    known_lessons.read(lesson.path, tmp_path)
    (memory,) = (tmp_path / "records" / "lessons").iterdir()
    digest, data = memory.read_text().split("\n")
    other = pickle.dumps(pickle.loads(base64.b64decode(data)).path)
    memory.write_text(f"{digest}\n{base64.b64encode(other).decode()}")
    assert "4.0" in known_lessons.read(lesson.path, tmp_path).notebook.cells[-1].source
    lesson.path.write_text(lesson.path.read_text().replace("4.0", "6.0"))
    assert "6.0" in known_lessons.read(lesson.path, tmp_path).notebook.cells[-1].source
