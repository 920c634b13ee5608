"""`invoke lint`: all faults of lessons and oracles that can be found without executing a lesson."""

from pathlib import Path

from ci.errors import CourseError
from ci.lesson.lesson import find_lessons, select_lessons
from ci.run.plan import faults


def lint(lessons: str, root: Path) -> int:
    """Print the faults of the selected lessons; the exit status is 1 if there is one."""
    paths = select_lessons(find_lessons(root / "lessons"), lessons)
    found = faults(paths, root / "build")
    for fault in found:
        print(fault)
    print(f"{_count(len(paths), 'lesson')}: {_count(len(found), 'fault')}")
    return CourseError.status if found else 0


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"
