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
    count = f"{len(paths)} lesson{'s' * (len(paths) != 1)}"
    print(f"{count}: {len(found)} faults" if found else f"{count}: no faults")
    return CourseError.status if found else 0


def faults(path: Path, build: Path) -> Iterator[str]:
    """The faults of a lesson's script; if it can be read, also of its oracle and its formulas."""
    try:
        lesson = parsed_lessons.read(path, build)
    except CourseError as error:
        yield _line(error)
        return
    try:
        oracle.load(lesson)
    except CourseError as error:
        yield _line(error)
    try:
        check_prose.check([lesson])
    except CourseError as error:
        yield _line(error)


def _line(error: CourseError) -> str:
    if error.status != CourseError.status:
        raise error
    return str(error)
