"""Lessons as they were read before: reading them takes longer than all the rest of a plan."""

import base64
import functools
import pickle
import sys
from pathlib import Path

from ci.errors import MachineError
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.machine import atomic
from ci.plan import keys

LESSONS = "lessons"  # folder below build/records/
READ_BY = ("errors.py", "lesson")  # parts of ci/


def read(path: Path, build: Path) -> Lesson:
    """The lesson at `path`, as `reader.read` returns it, read again only where it has changed."""
    record = build / "records" / LESSONS / f"{path.stem}.txt"
    try:
        neighbours = sorted(str(each) for each in path.parent.glob("*.py"))
        key = keys.digest(_code(), neighbours, str(path), path.read_bytes().hex())
    except OSError:
        return reader.read(path)  # says what is wrong
    return _load(record, key) or _read_and_record(path, record, key)


def _load(record: Path, key: str) -> Lesson | None:
    """The lesson in an undamaged record with this key."""
    try:
        digest, _, data = record.read_text(encoding="ascii").partition("\n")
    except (OSError, ValueError):
        return None
    if digest != keys.digest(key, data):
        return None
    lesson: Lesson = pickle.loads(base64.b64decode(data))
    return lesson


def _read_and_record(path: Path, record: Path, key: str) -> Lesson:
    lesson = reader.read(path)
    data = base64.b64encode(pickle.dumps(lesson)).decode()
    try:
        atomic.write(record, f"{keys.digest(key, data)}\n{data}")
    except OSError as error:  # of build/, and not of the lesson
        raise MachineError(
            f"{record.parents[2]}: {error.strerror}: make it writable, with room on its disk"
        ) from None
    return lesson


@functools.cache
def _code() -> str:
    return keys.digest(keys.packages(tuple(sys.path)), keys.code(READ_BY))
