"""Oracles: loading, matching with checks, and isolation from torch."""

import sys

import pytest

from ci.errors import CourseError
from ci.lesson import oracle
from ci.lesson.expect import expect
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, Read

OTHER = '\n\ndef other(size):\n    """Nothing."""\n    return 1\n'


def test_each_check_has_its_oracle(read: Read) -> None:
    """It is the function of that name; its docstring is the derivation."""
    found = oracle.load(read(expected=ORACLE))["gradient"]
    assert (found.rule.dtype, found.derivation) == ("float64", "dy/dx_i = 4 x_i.")


def test_helper_functions_are_not_oracles(read: Read) -> None:
    """Their names start with an underscore."""
    assert list(oracle.load(read(expected=ORACLE + OTHER.replace("other", "_other")))) == [
        "gradient"
    ]


def test_a_lesson_without_checks_needs_no_oracles(read: Read) -> None:
    """It needs no file in expected/."""
    assert oracle.load(read("# %%\nsize\n")) == {}


BAD = {
    r"lessons/01_small.py:18: value 'gradient' has no oracle": "",
    r"expected/01_small.py:\d+: 'other' is not a check": ORACLE + OTHER,
    r"not a parameter or given.*did you mean 'size'": ORACLE.replace("(size)", "(sise)", 1),
    r"'gradient' has no docstring": ORACLE.replace('"""dy/dx_i = 4 x_i."""', "pass"),
    r"expected/01_small.py:1: uses torch": "import torch\n" + ORACLE,
    r"uses torch.nn": ORACLE.replace("    return", "    from torch.nn import Linear\n    return"),
    r"uses ci.worker.kernel": "import ci.worker.kernel\n" + ORACLE,
    r"expected/01_small.py:\d+: the file is not plain Python": ORACLE + "def\n",
    r"uses __import__": ORACLE + '__import__("torch")\n',
    r"ImportError|ModuleNotFoundError: .*torch": (
        'import builtins\nlinear = builtins.__import__("torch.nn").nn.Linear\n' + ORACLE
    ),
    r"uses importlib": ORACLE + "import importlib\n",
    r"SystemExit: 0": ORACLE + "raise SystemExit(0)\n",
    r"a tolerance needs a reason": ORACLE.replace('dtype="float64"', "rel=1e-3"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_malformed_oracle_is_reported(read: Read, message: str) -> None:
    """The message has the file, before anything runs."""
    with pytest.raises(CourseError, match=message):
        oracle.load(read(GRADIENT, expected=BAD[message]))


def test_a_folder_in_the_place_of_an_oracle_is_the_courses_fault(read: Read) -> None:
    """The lesson has no oracle; the machine is not at fault."""
    lesson = read()
    (lesson.path.parent / "expected" / lesson.path.name).mkdir()
    with pytest.raises(CourseError, match="'gradient' has no oracle"):
        oracle.load(lesson)


def test_torch_cannot_be_imported_while_an_oracle_computes(read: Read) -> None:
    """Not even by `builtins.__import__`, although this process has imported it."""
    import torch

    importing = ORACLE.replace(
        "    return 4", '    import builtins; builtins.__import__("torch"); return 4'
    )
    found = oracle.load(read(expected=importing))["gradient"]
    with pytest.raises(CourseError, match="import of torch halted"):
        found.value({"size": 4})
    assert sys.modules["torch"] is torch


SHARING = "from _shared import slope\n" + ORACLE.replace("return 4", "return slope")


@pytest.mark.parametrize("slope", [4, 6])
def test_oracles_can_share_a_file(read: Read, slope: int) -> None:
    """It lies beside them, and its name starts with an underscore."""
    lesson = read(GRADIENT, expected=SHARING)
    (lesson.path.parent / "expected" / "_shared.py").write_text(f"slope = {slope}\n")
    value = oracle.load(lesson)["gradient"].value({"size": 2}).python()
    assert value.tolist() == [0, slope]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import numpy\nimport torch\nslope = 4\n", r"expected/_shared.py:2: uses torch"),
        ("from math import no\n", r"ImportError: cannot import name 'no'"),
        ("import _missing\n", r"expected/_shared.py:1: uses _missing"),
    ],
)
def test_a_shared_file_is_checked_like_an_oracle_file(read: Read, text: str, message: str) -> None:
    """The message has its own name and line."""
    lesson = read(GRADIENT, expected=SHARING)
    (lesson.path.parent / "expected" / "_shared.py").write_text(text)
    with pytest.raises(CourseError, match=message):
        oracle.load(lesson)


def test_equal_bits_need_no_reason() -> None:
    """`rel=0` is stricter than the default."""
    assert expect(rel=0)(lambda: 1) is not None


def test_the_oracle_of_an_exercise_cannot_have_a_given(read: Read) -> None:
    """The exercises of students have the parameters of the lesson, but not its random draws."""
    taking_given = HALVES.replace("halves(size)", "halves(size, draws)")
    given = '# %% given="draws"\nsize\n'
    example = '\n\ndef draws(size):\n    """An example."""\n    return size\n'
    lesson = read(given + GRADIENT + EXERCISE, expected=ORACLE + taking_given + example)
    with pytest.raises(CourseError, match=r"\d: halves\(draws\): the oracle of an exercise"):
        oracle.load(lesson)


def test_an_oracle_that_is_not_utf_8_is_reported(read: Read) -> None:
    """The message has its file name."""
    lesson = read(expected=ORACLE)
    path = lesson.path.parent / "expected" / lesson.path.name
    path.write_bytes(b"# caf\xe9\n" + path.read_bytes())
    with pytest.raises(CourseError, match="expected/01_small.py: the file is not plain Python"):
        oracle.load(lesson)


def test_an_oracle_that_changes_within_a_second_is_read_again(read: Read) -> None:
    """Stale bytecode would judge by the expected values of before."""
    sixfold = ORACLE.replace("return 4", "return 6")
    values = [
        oracle.load(read(expected=text))["gradient"].value({"size": 2}).value[1]
        for text in (ORACLE, sixfold, ORACLE)
    ]
    assert values == [4, 6, 4]
