"""A fault in a script, and the word that a misspelt word of a script probably means."""

from collections.abc import Sequence

from ci.errors import CourseError, closest


class ScriptError(Exception):
    """A fault in a script, in one of its lines or in its header."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line

    def in_file(self, name: str) -> CourseError:
        """The same fault with the name of the script: `lessons/03_autograd.py:41: …`."""
        return CourseError(f"{name}:{self.line}: {self}" if self.line else f"{name}: {self}")


def misspelt(word: str, words: Sequence[str]) -> str | None:
    """The one of `words` that `word` is with a typing error or two; or None."""
    return closest(word.lower(), words, likeness=0.75)
