"""One shown value against one expected value."""

from collections import Counter, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from ci.judge.compare import Comparison, _is_on
from ci.lesson.expect import Rule
from ci.lesson.value import _decode, encode, expected_value


def compare(shown: Any, expected: Any, **rule: Any) -> Comparison:
    """Compare the value that the kernel encodes with the value that an oracle returns."""
    parameters = {"device": rule.pop("on", "cpu"), "dtype": rule.pop("lesson_dtype", "float32")}
    comparison = Comparison(Rule(**rule), parameters)
    theirs = expected_value(expected)
    comparison.compare(_decode(encode(shown)), theirs)
    comparison.reject_vacuous(theirs)
    return comparison


AGREE: dict[str, tuple[Any, Any]] = {
    "a float32 tensor": (torch.tensor([0.0, 4.0]), np.array([0.0, 4.0])),
    "an integer tensor": (torch.arange(3), np.arange(3)),
    "a bool tensor": (torch.tensor([True]), np.array([True])),
    "an array": (np.array([1.5], dtype=np.float32), np.array([1.5])),
    "numpy.bool_": (np.bool_(True), np.bool_(True)),
    "a scalar tensor": (torch.tensor(2.0), np.float64(2.0)),
    "a parameter": (torch.nn.Parameter(torch.ones(2)), np.ones(2)),
    "torch.Size": (torch.ones(1, 3, 3).shape, (1, 3, 3)),
    "torch.dtype": (torch.float32, "torch.float32"),
    "torch.device": (torch.device("cpu"), "cpu"),
    "a class": (np.ndarray, "numpy.ndarray"),
    "a Python float": (0.5, 0.5),
    "a list for a tuple": ([1, "a"], (1, "a")),
    "an infinity": (torch.tensor([1.0, float("inf")]), np.array([1.0, np.inf])),
    "an expected NaN": (torch.tensor([1.0, float("nan")]), np.array([1.0, np.nan])),
    "a difference of rounding": (torch.tensor([1.0 + 2**-23]), np.array([1.0])),
}


@pytest.mark.parametrize("case", AGREE)
def test_equal_values_agree(case: str) -> None:
    """For each kind of value that a check can read."""
    comparison = compare(*AGREE[case])
    assert not (comparison.faults or comparison.invalid)


DIFFER: dict[str, tuple[Any, Any, str]] = {
    "another value": (torch.tensor([0.0, 6.0]), np.array([0.0, 4.0]), "difference 2 at [1]"),
    "another shape": (torch.ones(1, 2), np.ones(2), "shape (1, 2), expected (2,)"),
    "a scalar for a vector": (torch.tensor(1.0), np.ones(2), "shape (), expected (2,)"),
    "another dtype": (torch.ones(2, dtype=torch.float64), np.ones(2), "dtype float64, expected"),
    "floats for integers": (torch.ones(2), np.ones(2, dtype=int), "dtype float32, expected int64"),
    "a NaN": (torch.tensor([float("nan"), 1.0]), np.ones(2), "shown nan"),
    "an infinity": (torch.tensor([float("inf")]), np.ones(1), "difference inf"),
    "no infinity": (torch.tensor([1.0]), np.array([np.inf]), "shown 1.0 at [0], expected inf"),
    "an integer off by one": (torch.arange(3), np.array([0, 1, 3]), "shown 2 at [2], expected 3"),
    "True for 1": (True, 1, "shown True, expected 1"),
    "a tensor for a float": (torch.tensor(0.5), 0.5, "shown is an array of shape ()"),
    "a float for a tensor": (0.5, np.float64(0.5), "shown is 0.5, expected is an array"),
    "a missing item": ((1, 2), (1, 2, 3), "shown has the items 0, 1, expected 0, 1, 2"),
    "another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "in the order a, b, expected b, a"),
    "another key": ({"a": 1}, {"b": 1}, "shown has the items a, expected b"),
    "a leaf": ({"a": [1, 2]}, {"a": [1, 3]}, "[a][1]: shown 2, expected 3"),
    "a small element of a large tensor": (
        torch.tensor([1e3, 1e-2]),
        np.array([1e3, 1e-2 + 3e-3]),
        "allowed 0.002",
    ),
}


@pytest.mark.parametrize("case", DIFFER)
def test_a_difference_is_found_and_placed(case: str) -> None:
    """Each kind of difference is a fault that names its place."""
    shown, expected, message = DIFFER[case]
    assert message in compare(shown, expected).faults[0]


@pytest.mark.parametrize("value", [np.array([1.5], np.float32), np.bool_(True)])
def test_an_array_of_numpy_can_be_required(value: Any) -> None:
    """A tensor in its place is a fault then."""
    expected = value.astype(np.float64) if value.dtype.kind == "f" else value
    assert not compare(value, expected, device="numpy").faults
    [fault] = compare(torch.tensor(value), expected, device="numpy").faults
    assert "shown is a tensor, expected an array of NumPy" in fault


Point = namedtuple("Point", "loss accuracy")
Swapped = namedtuple("Swapped", "accuracy loss")


@pytest.mark.parametrize("expected", [{"loss": 1, "accuracy": 2}, Point(1, 2)])
def test_the_names_of_a_named_tuple_are_compared(expected: Any) -> None:
    """The reader sees them; those of torch are torch's own."""
    assert not compare(Point(1, 2), expected).faults
    assert compare(Swapped(1, 2), expected).faults
    assert not compare(torch.ones(2).max(0), (np.float64(1), np.int64(0))).faults


def test_a_counter_is_compared_in_the_order_in_which_it_is_shown() -> None:
    """The most common first, whichever came first."""
    assert not compare(Counter("baa"), {"a": 2, "b": 1}).faults


# https://github.com/pytorch/pytorch/issues/188680
@pytest.mark.parametrize(("shown", "expected"), [(-0.0, 0.0), (0.0, -0.0)])
def test_the_sign_of_zero_is_compared_where_numbers_must_be_equal(
    shown: float, expected: float
) -> None:
    """It is a matter of rounding elsewhere."""
    pair = torch.tensor([1.0, shown]), np.array([1.0, expected])
    assert compare(*pair, rel=0).faults == [f"shown {shown} at [1], expected {expected}"]
    assert not compare(*pair).faults


def test_there_is_no_absolute_tolerance() -> None:
    """A gradient of 1e-9 that is off by half is wrong, however small it is."""
    assert compare(torch.tensor([1.5e-9]), np.array([1e-9])).faults


def test_a_tensor_on_the_wrong_device_differs() -> None:
    """A lesson on cuda that shows a tensor on the CPU did not use the GPU."""
    assert "on cpu, expected on cuda" in compare(torch.ones(2), np.ones(2), on="cuda:0").faults[0]


def test_a_leaf_under_a_device_lives_there() -> None:
    """The key of a mapping may be the device that its tensor is expected on."""
    fault = compare({"cuda:0": torch.ones(2)}, {"cuda:0": np.ones(2)}).faults[0]
    assert "[cuda:0]: on cpu, expected on cuda:0" in fault


def test_zeros_are_vacuous_unless_declared() -> None:
    """A check that expects zeros would pass for a tensor that nobody has filled."""
    assert "vacuous" in compare(torch.zeros(3), np.zeros(3)).invalid[0]
    assert not compare(torch.zeros(3), np.zeros(3), zero=True).invalid


def test_an_empty_or_diverging_expectation_is_vacuous() -> None:
    """Too many values would agree with an empty value, or with only NaN or infinities."""
    nan = np.full(2, np.nan)
    assert "vacuous" in compare([], []).invalid[0]
    assert "vacuous" in compare(torch.tensor(nan, dtype=torch.float32), nan).invalid[0]


def test_elements_of_all_magnitudes_can_be_compared() -> None:
    """Relative to the largest element, a small one may be anything; `elementwise` checks it too."""
    shown, expected = torch.tensor([1e6, 2.9]), np.array([1e6, 1.0])
    assert not compare(shown, expected).faults
    fault = compare(shown, expected, elementwise=True).faults[0]
    assert "largest difference 1.9 at [1]" in fault
    assert "allowed 2e-06" in fault


def test_an_expected_zero_among_elements_is_exact() -> None:
    """A tolerance relative to zero allows no difference."""
    shown, expected = torch.tensor([1e6, 1e-3]), np.array([1e6, 0.0])
    assert "at [1]" in compare(shown, expected, elementwise=True).faults[0]


def test_a_device_with_an_index_is_exactly_that_device() -> None:
    """cuda:1 is a device of cuda, and not cuda:0."""
    assert _is_on("cuda:1", "cuda")
    assert not _is_on("cuda:1", "cuda:0")


def test_an_array_is_not_on_a_gpu() -> None:
    """A NumPy array in a lesson on cuda is on the CPU."""
    assert "on cpu, expected on cuda" in compare(np.ones(2, "f4"), np.ones(2), on="cuda").faults[0]


def test_a_tolerance_of_a_percent_is_refused() -> None:
    """A wider tolerance would check nothing."""
    rule = {"rel": 0.01, "why": "a reason"}
    assert "1.0% of the largest" in compare(torch.ones(2), np.ones(2), **rule).invalid[0]


def test_a_dtype_without_tolerance_is_refused() -> None:
    """float16 has no default, so the oracle must declare one."""
    half = torch.ones(2, dtype=torch.float16)
    assert "no tolerance is known" in compare(half, np.ones(2), dtype="float16").invalid[0]


def test_rel_0_requires_equality() -> None:
    """One unit in the last place is a fault."""
    assert compare(torch.tensor([1.0 + 2**-23]), np.ones(1), rel=0).faults


def test_the_margin_is_the_share_of_the_tolerance_used() -> None:
    """Half of the tolerance is a margin of one half."""
    shown = torch.tensor([1.0 + 1e-12 / 2], dtype=torch.float64)
    assert compare(shown, np.ones(1), lesson_dtype="float64").margin == pytest.approx(0.5, rel=1e-3)


def test_float64_is_compared_in_float64() -> None:
    """A difference of 1e-11 is seen in a float64 lesson."""
    shown = torch.tensor([1.0 + 1e-11], dtype=torch.float64)
    assert compare(shown, np.ones(1), lesson_dtype="float64").faults


def test_an_array_of_objects_can_not_be_expected() -> None:
    """The message for an oracle that forgets a return inside an array is one line."""
    with pytest.raises(TypeError, match="returns an array of object"):
        expected_value(np.array([None, None]))
