"""Control characters in printed text: every format shows what a terminal shows at the end.

Cases without an address are from this project's own reviews.
"""

import pytest
from nbformat.v4 import new_output

from ci.handout.handout import prepare
from ci.handout.terminal import shown
from ci.worker import executed
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        # https://github.com/jupyterlab/jupyterlab/issues/1104
        ("0\r1\r2", "2"),
        ("100\b\b5", "150"),
        ("12\x1b[2K\r34", "34"),
        ("longer\rab", "abnger"),
        ("longer\r\x1b[Kab", "ab"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("\b\bx", "x"),
        ("abc\b\b\x1b[1Kd", " dc"),
        ("中文\b\bx", "x文"),
        ("\x1b[31mred\x1b[0m\r\x1b[32mx", "xed"),
        ("plain\ttext\n", "plain\ttext\n"),
        ("x" * 300 + "\r", "x" * 300),
        ("\x1b[?25lx\r", "x"),
    ],
)
def test_a_terminal_shows(printed: str, seen: str) -> None:
    """Return, backspace and erasures are obeyed; other text is left alone."""
    assert shown(printed) == seen


def test_pieces_of_a_progress_bar_are_one_output(make: Make) -> None:  # noqa: F811
    """Each flush is a message of its own; the last state remains."""
    pieces = [new_output("stream", name="stderr", text=f"\r{step} %") for step in (0, 50, 100)]
    handout = make(*pieces)
    executed.tidy(handout.outcome.notebook)
    assert [output.text for output in prepare(handout, "en").cells[-1].outputs] == ["100 %"]
