"""What can go wrong, by who can mend it. Caught once, in tasks.py."""


class CourseError(Exception):
    """The course is at fault: a lesson, an oracle, a result. Exit status 1."""

    status = 1


class UsageError(CourseError):
    """The command line is at fault. Exit status 2."""

    status = 2


class MachineError(CourseError):
    """The machine is at fault: GPU, torch's build, Docker, Slurm. Exit status 3."""

    status = 3


def nearest(word: str, words: list[str]) -> str:
    """A hint that names the right word: `; did you mean 'size'?`, or all words, or nothing."""
    from difflib import get_close_matches

    if close := get_close_matches(word, words, n=1, cutoff=0.5):
        return f"; did you mean '{close[0]}'?"
    return f"; there are: {', '.join(words)}" if words else ""
