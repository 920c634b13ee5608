"""The tolerances, and the numeric comparison that all checks share."""

import math

import numpy as np
import pytest

from ci.judge.tolerances import first_unequal, largest_deviation, relative_tolerance


def test_a_gpu_rounds_float32_more_coarsely() -> None:
    """float64 has one tolerance everywhere; float16 has no default."""
    assert relative_tolerance("float32", "cpu") == 2e-6
    assert relative_tolerance("float32", "cuda:1") == 1e-5
    assert relative_tolerance("float64", "cuda:0") == relative_tolerance("float64", "cpu") == 1e-12
    assert relative_tolerance("float16", "cuda") is None


def test_the_tolerance_ends_at_the_allowed_difference() -> None:
    """The next float beyond it is too far."""
    expected = np.array([4.0, 1.0])
    assert largest_deviation(np.array([4.0, 1.5]), expected, 0.125).share == 1
    beyond = largest_deviation(np.array([4.0, np.nextafter(1.5, 2)]), expected, 0.125)
    assert (beyond.index, beyond.allowed, beyond.is_allowed) == ((1,), 0.5, False)


def test_elementwise_the_worst_element_is_the_one_with_the_largest_share() -> None:
    """It may have the smaller difference."""
    worst = largest_deviation(np.array([101.0, 1.5]), np.array([100.0, 1.0]), 0.1, 0.0, True)
    assert (worst.index, worst.difference, worst.share) == ((1,), 0.5, 5.0)


@pytest.mark.parametrize("shown", [np.nan, np.inf, -np.inf])
def test_a_shown_nan_or_infinity_is_never_allowed(shown: float) -> None:
    """It is found among elements that differ little."""
    worst = largest_deviation(np.array([1.0 + 1e-7, shown]), np.ones(2), 1e-6, 1.0)
    assert (worst.index, worst.is_allowed) == ((1,), False)


def test_numbers_at_the_ends_of_the_range_are_compared_without_a_warning() -> None:
    """A share may be infinite; nothing overflows aloud."""
    assert largest_deviation(np.array(1e300), np.array(-1e300), 1e-12).share > 1
    assert largest_deviation(np.array(1e308), np.array(-1.7e308), 0.0).share == math.inf
    assert largest_deviation(np.array(5e-324), np.array(0.0), 0.0).share == math.inf


def test_an_expected_nan_or_infinity_must_be_shown() -> None:
    """Other floating elements are left to the tolerance."""
    expected = np.array([1.0, np.nan, np.inf])
    assert first_unequal(np.array([2.0, np.nan, np.inf]), expected) is None
    assert first_unequal(np.array([1.0, 0.0, np.inf]), expected) == (1,)
    assert first_unequal(np.array([1.0, np.nan, -np.inf]), expected) == (2,)


def test_integers_and_truth_values_must_be_equal() -> None:
    """A scalar's index is empty."""
    assert first_unequal(np.array([[1, 2], [3, 5]]), np.array([[1, 2], [3, 4]])) == (1, 1)
    assert first_unequal(np.array(True), np.array(False)) == ()
    assert first_unequal(np.array(True), np.array(True)) is None


def test_nothing_is_wrong_in_an_empty_array() -> None:
    """Whether it may be expected at all, the check decides."""
    assert first_unequal(np.zeros((2, 0)), np.zeros((2, 0))) is None
    assert largest_deviation(np.zeros((2, 0)), np.zeros((2, 0)), 0.0).share == 0
