r"""Printed text as a terminal shows it: `\r`, `\b` and the sequences that move or erase obeyed.

The library pyte has a screen of fixed size, which folds long lines and forgets early ones, and it
fails where a narrow character overwrites a wide one; the few sequences of progress bars need less.
"""

import re

OBEYED = re.compile(r"[\r\b]|\x1b\[[0-9;?]*[A-HJK]")
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([@-~])|[\s\S]")


def shown(text: str) -> str:
    """What a terminal shows after `text` was printed; colours stay where nothing else is obeyed."""
    text = text.replace("\r\n", "\n")
    if not OBEYED.search(text):
        return text
    screen = _Screen()
    for token in TOKEN.finditer(text):
        if token[2]:
            screen.obey(token[2], token[1])
        else:
            screen.write(token[0])
    return "\n".join("".join(line) for line in screen.lines)


class _Screen:
    def __init__(self) -> None:
        self.lines: list[list[str]] = [[]]
        self.row = self.column = 0

    def write(self, character: str) -> None:
        match character:
            case "\n":
                self._go(self.row + 1, 0)
            case "\r":
                self.column = 0
            case "\b":
                self.column = max(self.column - 1, 0)
            case _:
                line = self.lines[self.row]
                line.extend(" " * (self.column - len(line)))
                line[self.column : self.column + 1] = [character]
                self.column += 1

    def _go(self, row: int, column: int) -> None:
        self.row, self.column = max(row, 0), max(column, 0)
        self.lines.extend([] for _ in range(self.row + 1 - len(self.lines)))

    def obey(self, command: str, parameters: str) -> None:
        """Move by A to G (up, down, right, left, lines, column) or erase by J and K."""
        number = int(parameters) if parameters.isascii() and parameters.isdigit() else 0
        number, step = min(number, 10_000), min(max(number, 1), 10_000)
        match command:
            case "A" | "F":
                self._go(self.row - step, self.column if command == "A" else 0)
            case "B" | "E":
                self._go(self.row + step, self.column if command == "B" else 0)
            case "C" | "D":
                self._go(self.row, self.column + (step if command == "C" else -step))
            case "G":
                self._go(self.row, step - 1)
            case "K":
                self._erase(number)
            case "J" if number >= 2:
                self.lines, self.row, self.column = [[]], 0, 0
            case "J":
                self._erase(number)
                del self.lines[self.row + 1 :]

    def _erase(self, part: int) -> None:
        line = self.lines[self.row]
        if part == 0:
            del line[self.column :]
        elif part == 1:
            line[: self.column + 1] = " " * min(self.column + 1, len(line))
        else:
            line.clear()
