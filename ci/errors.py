"""The exceptions of this project, by who has to act. tasks.py catches them in one place."""

from collections.abc import Sequence


class CourseError(Exception):
    """The course is at fault: a lesson, an oracle or a result. Exit status 1."""

    status = 1


class UsageError(CourseError):
    """The command line is at fault. Exit status 2."""

    status = 2


class MachineError(CourseError):
    """The machine is at fault: GPU, torch's build, Docker or Slurm. Exit status 3."""

    status = 3


def closest(word: str, words: Sequence[str], likeness: float = 0.5) -> str | None:
    """The one of `words` that `word` probably misspells, or None."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, words, n=1, cutoff=likeness)), None)


def suggest(word: str, words: Sequence[str]) -> str:
    """The end of a message about an unknown word: `; did you mean 'size'?`, or all valid words."""
    if match := closest(word, words):
        return f"; did you mean '{match}'?"
    return f"; expected one of: {', '.join(words)}" if words else ""
