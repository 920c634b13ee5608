"""Compare the text that a cell prints with its expected text, number by number."""

import math
import re

import numpy as np

from ci.judge.compare import COARSEST, Comparison, floating_dtype
from ci.lesson.node import NotebookNode
from ci.lesson.value import Comparable

NUMBER = re.compile(r"[-+]?(?<![\w.])(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.]*\w)")
SPACE = " \t"  # at the end of a line; other white space moves a terminal's cursor
LONGEST = 60  # characters of a text in a table


def printed_text(cell: NotebookNode) -> Comparable:
    """The text that an executed cell printed. Raises ValueError if it was not executed."""
    if cell.execution_count is None:
        raise ValueError("its cell never ran")
    streams = [out for out in cell.outputs if out.output_type == "stream"]
    return Comparable("plain", "".join(out.text for out in streams if out.name == "stdout"))


def shortened(text: object) -> str:
    """The text on one line, for a table."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def compare_printed(comparison: Comparison, shown: Comparable, expected: Comparable) -> None:
    """Compare two texts line by line: equal words, and numbers within the usual tolerances.

    Space at the end of a line is ignored, and whole numbers must be equal. A shown number may be
    rounded if the expected one has more digits.
    """
    if not isinstance(expected.value, str):
        comparison.invalid.append("its oracle must return the text that the cell prints")
        return
    lines, wanted = _lines(str(shown.value)), _lines(expected.value)
    if len(lines) != len(wanted):
        comparison.faults.append(f"prints {len(lines)} lines, expected {len(wanted)}")
    for number, pair in enumerate(zip(lines, wanted, strict=False), start=1):
        _compare_line(comparison, f"line {number}", *pair)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip(SPACE) for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _compare_line(comparison: Comparison, place: str, shown: str, expected: str) -> None:
    if _form(shown) != _form(expected):
        comparison.faults.append(f"{place}: shown {shown!r}, expected {expected!r}")
        return
    for one, other in zip(NUMBER.findall(shown), NUMBER.findall(expected), strict=True):
        if _is_exact(one) or one[-1] == other[-1] == ".":  # whole, at the end of a sentence
            if one != other:
                comparison.faults.append(f"{place}: shown {one}, expected {other}")
        else:
            dtype = floating_dtype(comparison.rule, comparison.parameters)
            device = str(comparison.rule.device or comparison.parameters.get("device", "cpu"))
            array = Comparable("array", np.array(float(one)), dtype, device)
            wanted, faults = np.array(_nearest(one, other)), len(comparison.faults)
            comparison.compare(array, Comparable("array", wanted, "float64"), place)
            if wanted != float(other) and comparison.faults[faults:]:
                comparison.faults[faults:] = [f"{place}: shown {one}, expected {other}"]


def _nearest(shown: str, expected: str) -> float:
    """The expected number, or if it has more digits, the nearest one that is shown so rounded.

    A number that is rounded by 1 % or more must be printed so by the oracle.
    """
    half = _last_digit(shown) / 2
    if _last_digit(expected) > half or half >= COARSEST * abs(float(expected)):
        half = 0.0
    return min(max(float(shown), float(expected) - half), float(expected) + half)


def _last_digit(number: str) -> float:
    """The size of one unit of the last digit of a number."""
    digits, _, exponent = number.lower().partition("e")
    decimals = len(digits.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def _form(line: str) -> str:
    """The line with a mark for each number, which says whether it is whole."""
    return NUMBER.sub(lambda match: "\0" if _is_exact(match[0]) else "\1", line)


def _is_exact(number: str) -> bool:
    """Whether a number is compared as it is written: a whole one, or one that is too large."""
    return number.lstrip("+-").isdigit() or not math.isfinite(float(number))
