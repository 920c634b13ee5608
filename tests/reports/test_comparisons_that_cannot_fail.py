"""Comparisons that accepted a wrong value, each with the message that names it today.

Cases without an address are from this project's own reviews.
"""

from typing import Any

import numpy as np
import pytest
import torch

from ci.judge.compare import Comparison
from ci.lesson.expect import Rule, expect
from ci.lesson.value import _decode, encode, expected_value, with_scale


def compare(shown: Any, expected: Any, terms: Any = 0, **rule: Any) -> Comparison:
    """Compare a value of a lesson on the CPU with that of its oracle."""
    parameters = {"dtype": rule.pop("lesson_dtype", "float32"), "device": "cpu"}
    comparison = Comparison(Rule(**rule), parameters)
    wanted = with_scale(expected_value(expected), expected_value(terms))
    comparison.compare(_decode(encode(shown)), wanted)
    comparison.reject_vacuous(wanted)
    return comparison


NO_TOLERANCES: dict[str, dict[str, Any]] = {
    "a negative rel": {"rel": -1e-9},
    "a negative abs": {"abs": -1.0},
    "an infinite abs": {"abs": float("inf")},
    "NaN": {"rel": float("nan")},
    "text": {"rel": "1e-6"},
    "None for abs": {"abs": None},
    "a truth value": {"rel": True},
    "a dtype of torch": {"dtype": torch.float32},
    "a text for zero": {"zero": "yes"},
    "a number too large for a float": {"abs": 10**400},
}


@pytest.mark.parametrize("case", NO_TOLERANCES)
def test_a_tolerance_is_a_finite_number_that_is_not_negative(case: str) -> None:
    """Anything else is refused in one line that names the check and the value."""
    with pytest.raises(ValueError, match=r"^@expect of 'slope': \w+=.* must be a [^\n]*$"):

        @expect(**NO_TOLERANCES[case], why="because")
        def slope() -> int:
            return 1


@pytest.mark.parametrize("why", ["", " ", "\n"])
def test_a_tolerance_has_a_reason(why: str) -> None:
    """White space is none."""
    with pytest.raises(ValueError, match=r"a tolerance needs a reason: write why="):
        expect(rel=1e-3, why=why)(lambda: 1)


def test_an_absolute_tolerance_is_bounded_where_zero_is_expected() -> None:
    """0.9 is not 0, also if other tensors of the check are large."""
    far = torch.full((2,), 0.9)
    assert (
        "share of an expected zero"
        in compare(far, np.zeros(2), abs=1.0, zero=True, why="w").invalid[0]
    )
    parts = {"gradient": far, "loss": torch.tensor([1e6])}
    wanted = {"gradient": np.zeros(2), "loss": np.array([1e6])}
    assert "share of an expected zero" in compare(parts, wanted, abs=1.0, why="w").invalid[0]


def test_the_scale_of_the_terms_bounds_an_absolute_tolerance() -> None:
    """A sum of terms of size 1 may cancel; 1 % of their size is too much."""
    tiny, rule = torch.full((2,), 1e-8), {"zero": True, "why": "w"}
    assert not compare(tiny, np.zeros(2), 1.0, abs=5e-8, **rule).invalid
    assert not compare(tiny, np.zeros(2), 1.0, abs=5e-8, **rule).faults
    assert compare(tiny * 1e3, np.zeros(2), 1.0, abs=5e-8, **rule).faults
    assert "10.0%" in compare(tiny, np.zeros(2), 1.0, abs=0.1, **rule).invalid[0]


def test_terms_that_cancel_too_far_are_refused() -> None:
    """Rounding would be all that remains, so that zero would pass."""
    comparison = compare(torch.tensor([1e-3]), np.array([1e-3]), 1e4)
    assert comparison.invalid == [
        "its terms cancel so far that a value of zero would pass: use other parameters"
    ]
    assert "terms" not in compare(torch.tensor([1.0]), np.array([1.0]), 1e4).invalid


# https://github.com/numpy/numpy/issues/5654
EMPTY: dict[str, tuple[Any, Any]] = {
    "bool": (torch.zeros(0, dtype=torch.bool), np.zeros(0, dtype=bool)),
    "declared zero": (torch.zeros(0), np.zeros(0)),
    "in a list": ([torch.zeros(0)], [np.zeros(0)]),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_value_is_vacuous(case: str) -> None:
    """For each dtype, also with `zero=True`."""
    assert "empty" in compare(*EMPTY[case], zero=True).invalid[0]


UNEQUAL: dict[str, tuple[Any, Any]] = {
    "complex: NaN in the other part": (complex(1, np.nan), complex(np.nan, 1)),
    "complex: NaN and another number": (complex(np.nan, 5), complex(np.nan, 1)),
    "complex: the modulus overflows": (complex(1e308, 0), complex(1.7e308, 1.7e308)),
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_both_parts_of_a_complex_number_are_compared(case: str) -> None:
    """NumPy calls a number NaN if one part is; the other part counts too."""
    shown, expected = (np.array([1, number], dtype=complex) for number in UNEQUAL[case])
    assert compare(shown, expected).faults
    assert not compare(expected, expected).faults


def test_integers_are_not_compared_as_floats() -> None:
    """Beyond 2**53 a float64 is no integer's neighbour."""
    shown, expected = torch.tensor([2**53 + 1]), np.array([2.0**53])
    assert "array of int64" in compare(shown, expected, dtype="int64", rel=0).invalid[0]
    assert "array of int64" in compare(shown, expected, lesson_dtype="int64", rel=0).invalid[0]


def test_long_doubles_are_refused() -> None:
    """They are read in float64, which loses their last digits."""
    one = np.array([1], dtype=np.longdouble)
    fault = compare(one + np.finfo(np.longdouble).eps, one, rel=0).invalid[0]
    assert "would lose digits" in fault


def test_a_key_that_is_a_number_is_not_its_text() -> None:
    """1 and "1" are two keys in Python."""
    assert compare({1: 5}, {"1": 5}).faults
    assert not compare({1: 5}, {1: 5}).faults
    assert not compare({torch.device("cpu"): 5}, {"cpu": 5}).faults


def test_a_message_says_what_the_oracle_should_return() -> None:
    """For a tensor of one element, for a Python value, and for None."""
    assert "returns np.bool_(True)" in compare(torch.tensor(True), True).faults[0]
    assert "returns np.int64(3)" in compare(torch.tensor(3), 3).faults[0]
    assert "returns np.float64(0.5)" in compare(torch.tensor(0.5), 0.5).faults[0]
    assert "for a Python value, the oracle returns 0.5" in compare(0.5, np.float64(0.5)).faults[0]
    assert "the oracle returns True" in compare([True], [np.True_]).faults[0]
    assert "returns" not in compare([True], [np.array([True])]).faults[0]
    with pytest.raises(TypeError, match="`value is None`"):
        expected_value(None)


@pytest.mark.parametrize("value", [10**5000, "\ud800"], ids=["integer", "text"])
def test_a_value_without_a_text_is_refused(value: Any) -> None:
    """It could be written neither to the report nor to the page."""
    with pytest.raises(ValueError, match="digits|surrogates"):
        expected_value(value)


def test_a_given_has_the_type_of_its_example() -> None:
    """A text is no number, and an empty tensor gives nothing."""
    comparison = Comparison(Rule(), {}, given=True)
    comparison.compare(_decode(encode("three")), expected_value(3))
    assert comparison.faults == ["shown 'three', expected a value like 3"]
    comparison.reject_empty(_decode(encode(torch.zeros(0))))
    assert "empty" in comparison.invalid[0]
