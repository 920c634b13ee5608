"""Oracles: found, matched with the checks, and kept away from torch."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ci.errors import CourseError
from ci.lesson import oracle
from ci.lesson.expect import Rule, expect
from ci.lesson.oracle import Oracle
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, Read

OTHER = '\n\ndef other(size):\n    """Nothing."""\n    return 1\n'


def test_each_check_has_its_oracle(read: Read) -> None:
    """The function of a check's name, with its rule and the docstring as derivation."""
    found = oracle.load(read(expected=ORACLE))["gradient"]
    assert (found.rule.dtype, found.derivation) == ("float64", "dy/dx_i = 4 x_i.")


def test_helpers_are_no_oracles(read: Read) -> None:
    """A name that starts with _ belongs to no check."""
    assert list(oracle.load(read(expected=ORACLE + OTHER.replace("other", "_other")))) == [
        "gradient"
    ]


def test_a_lesson_without_checks_needs_no_oracles(read: Read) -> None:
    """No file in expected/ is fine where there is nothing to expect."""
    assert oracle.load(read("# %%\nsize\n")) == {}


BAD = {
    r"lessons/01_small.py:18: value 'gradient' has no function": "",
    r"expected/01_small.py:\d+: 'other' is no check": ORACLE + OTHER,
    r"not a parameter or given.*did you mean 'size'": ORACLE.replace("(size)", "(sise)", 1),
    r"'gradient' has no docstring": ORACLE.replace('"""dy/dx_i = 4 x_i."""', "pass"),
    r"expected/01_small.py:1: uses torch": "import torch\n" + ORACLE,
    r"uses torch.nn": ORACLE.replace("    return", "    from torch.nn import Linear\n    return"),
    r"uses ci.worker.kernel": "import ci.worker.kernel\n" + ORACLE,
    r"expected/01_small.py:\d+: not Python": ORACLE + "def\n",
    r"uses __import__": ORACLE + '__import__("torch")\n',
    r"ImportError|ModuleNotFoundError: .*torch": (
        'import builtins\nlinear = builtins.__import__("torch.nn").nn.Linear\n' + ORACLE
    ),
    r"uses importlib": ORACLE + "import importlib\n",
    r"SystemExit: 0": ORACLE + "raise SystemExit(0)\n",
    r"a tolerance of one's own wants a reason": ORACLE.replace('dtype="float64"', "rel=1e-3"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_oracle_is_named(read: Read, message: str) -> None:
    """What is wrong with expected values is said before anything runs."""
    with pytest.raises(CourseError, match=message):
        oracle.load(read(GRADIENT, expected=BAD[message]))


def test_torch_cannot_be_imported_while_an_oracle_computes(read: Read) -> None:
    """In whichever way it is spelt, and although this process has imported it."""
    import torch

    computes = ORACLE.replace(
        "    return 4", '    import builtins; builtins.__import__("torch"); return 4'
    )
    found = oracle.load(read(expected=computes))["gradient"]
    with pytest.raises(CourseError, match="import of torch halted"):
        found.value({"size": 4})
    assert sys.modules["torch"] is torch


def test_equal_bits_need_no_reason() -> None:
    """rel=0 is stricter than the default."""
    assert expect(rel=0)(lambda: 1) is not None


def _oracle(function: Callable[..., Any], *wants: str) -> Oracle:
    return Oracle(function, Rule(), wants)


def test_an_oracle_that_leaves_is_at_fault() -> None:
    """SystemExit in an oracle is no way to end the build with status 0."""
    with pytest.raises(CourseError, match="its oracle: SystemExit"):
        _oracle(lambda: exit(0)).value({})


def test_an_oracle_that_does_not_end_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a deadline of its own."""

    def forever() -> None:
        while True:
            pass

    monkeypatch.setattr(oracle, "DEADLINE_S", 0.1)
    with pytest.raises(CourseError, match="TimeoutError: not done within"):
        _oracle(forever).value({})


def test_an_oracle_cannot_change_what_the_next_one_gets() -> None:
    """Each call has copies of the givens."""
    known = {"a": np.ones(2)}
    _oracle(lambda a: a.fill(7), "a").value(known)
    assert known["a"].tolist() == [1.0, 1.0]


def test_the_oracle_of_an_exercise_takes_no_givens(read: Read) -> None:
    """A student's notebook of exercises has the parameters, and not what the lesson drew."""
    taking = HALVES.replace("halves(size)", "halves(size, draws)")
    given = '# %% given="draws"\nsize\n'
    example = '\n\ndef draws(size):\n    """An example."""\n    return size\n'
    lesson = read(given + GRADIENT + EXERCISE, expected=ORACLE + taking + example)
    with pytest.raises(CourseError, match=r"01_small.py:\d+: halves\(draws\): a given"):
        oracle.load(lesson)


def test_an_oracle_that_is_not_utf_8_is_named(read: Read) -> None:
    """Bytes of another encoding are an error of that file."""
    lesson = read(expected=ORACLE)
    path = lesson.path.parent / "expected" / lesson.path.name
    path.write_bytes(b"# caf\xe9\n" + path.read_bytes())
    with pytest.raises(CourseError, match="expected/01_small.py: not Python"):
        oracle.load(lesson)
