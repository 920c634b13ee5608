r"""Printed text as a terminal shows it at the end: `\r`, `\b` and the erasing of a line obeyed.

The library pyte has a screen of fixed size, which folds long lines and forgets early ones, and it
fails where a narrow character overwrites a wide one; progress bars need less.
"""

import re

OBEYED = re.compile(r"[\r\b]|\x1b\[[012]?K")
TOKEN = re.compile(r"\x1b\[[0-9;?]*[@-~]|.", re.DOTALL)


def shown(text: str) -> str:
    """What a terminal shows after `text` was printed; colours stay where nothing else is obeyed."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_overwritten(line) if OBEYED.search(line) else line for line in lines)


def _overwritten(line: str) -> str:
    """A line after all of its returns, backspaces and erasures."""
    seen: list[str] = []
    column = 0
    for token in TOKEN.findall(line):
        match token:
            case "\r":
                column = 0
            case "\b":
                column = max(column - 1, 0)
            case "\x1b[K" | "\x1b[0K":
                del seen[column:]
            case "\x1b[1K":
                seen[: column + 1] = " " * min(column + 1, len(seen))
            case "\x1b[2K":
                seen.clear()
            case _ if len(token) == 1:
                seen.extend(" " * (column - len(seen)))
                seen[column : column + 1] = [token]
                column += 1
    return "".join(seen)
