"""`invoke lint`: all faults of lessons and oracles that can be found without executing a lesson."""

from collections.abc import Iterator
from pathlib import Path

from ci.errors import CourseError
from ci.handout import check_prose
from ci.lesson import oracle
from ci.lesson.lesson import find_lessons, select_lessons
from ci.plan import parsed_lessons


def lint(lessons: str, root: Path) -> int:
    """Print the faults of the selected lessons; the exit status is 1 if there is one."""
    paths = select_lessons(find_lessons(root / "lessons"), lessons)
    found = [fault for path in paths for fault in faults(path, root / "build")]
    for fault in found:
        print(fault)
    print(f"{_count(len(paths), 'lesson')}: {_count(len(found), 'fault')}")
    return CourseError.status if found else 0


def faults(path: Path, build: Path) -> Iterator[str]:
    """The faults of a lesson's script; if it can be read, also of its oracle and its prose."""
    try:
        lesson = parsed_lessons.read(path, build)
    except CourseError as error:
        yield from _lines(error)
        return
    for check in (oracle.load, lambda lesson: check_prose.check([lesson])):
        try:
            check(lesson)
        except CourseError as error:
            yield from _lines(error)


def _lines(error: CourseError) -> list[str]:
    if error.status != CourseError.status:
        raise error
    return str(error).splitlines()


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"
