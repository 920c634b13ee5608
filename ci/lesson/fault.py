"""A fault in a script, and the word that a misspelt word of a script probably means."""

from collections.abc import Sequence

from ci.errors import CourseError


class ScriptError(Exception):
    """A fault in a script, in one of its lines or in its header."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line

    def in_file(self, name: str) -> CourseError:
        """The same fault with the name of the script: `lessons/03_autograd.py:41: …`."""
        return CourseError(f"{name}:{self.line}: {self}" if self.line else f"{name}: {self}")


def misspelt(word: str, words: Sequence[str]) -> str | None:
    """The one of `words` that `word` is with one typing error, or two in a long word; or None."""
    for known in words:
        limit = 1 if min(len(word), len(known)) <= 4 else 2
        if word != known and _distance(word.lower(), known.lower()) <= limit:
            return known
    return None


def _distance(a: str, b: str) -> int:
    """How many letters to insert, remove, replace or swap to make one word of the other."""
    if abs(len(a) - len(b)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, a[i - 2]) == (b[j - 2], y):
                new[j] = min(new[j], before[j - 2] + 1)
        before, row = row, new
    return row[-1]
