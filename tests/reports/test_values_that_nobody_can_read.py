"""Values that a notebook cannot hold: their run hung to its deadline, or failed without its cell.

The cases are from this project's own reviews.
"""

import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ci.lesson.value import encode
from ci.worker.kernel import pack


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    """Of the digits of an integer, as a lesson may set it."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


def nested(levels: int) -> Any:
    """A list in lists."""
    return functools.reduce(lambda inner, _: [inner], range(levels), 1)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (10**4300, "int: more than 4300 digits"),
        (-(10**4300), "int: more than 4300 digits"),
        ({"a": [10**5000]}, "dict: more than 4300 digits"),
        (nested(101), "list: nested more than 100 levels"),
        ({"a": nested(200)}, "dict: nested more than 100 levels"),
    ],
    ids=["digits", "negative", "digits in a dict", "levels", "levels in a dict"],
)
def test_it_is_unreadable(value: Any, why: str) -> None:
    """Its check fails by name, and the notebook is read."""
    assert encode(value) == {"kind": "unreadable", "why": why}


@pytest.mark.parametrize("value", [10**4300 - 1, nested(100)], ids=["digits", "levels"])
def test_a_little_less_is_readable(value: Any) -> None:
    """As large as Python reads, and as deep as a notebook may be."""
    assert encode(value)["kind"] != "unreadable"


def test_a_message_with_an_endless_integer_is_an_error_of_its_cell() -> None:
    """It would end the process that reads it, and the lesson's limit stays."""
    with pytest.raises(ValueError, match="4300 digits"):
        pack({"data": 10**4300})
    assert sys.get_int_max_str_digits() == 0
    assert json.loads(pack({"data": 10})) == {"data": 10}
