"""Compare a shown value with its expected value: structure, shape, dtype, device, then numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ci.judge.tolerances import (
    first_unequal,
    largest_deviation,
    magnitudes,
    relative_tolerance,
    smallest_scale,
)
from ci.lesson.expect import Rule
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable

NUMPY = "numpy"  # the device that a rule requires of an array that is no tensor
COARSEST = 0.01  # of the largest expected value: a tolerance as wide as this checks nothing


def floating_dtype(rule: Rule, parameters: Mapping[str, Value]) -> str:
    """The dtype that a lesson must show where its oracle, which computes in float64, returns it."""
    return rule.dtype or str(parameters.get("dtype", "float32"))


@dataclass
class Comparison:
    """The comparison of a shown value with its expected value, leaf by leaf.

    Collects `faults` of the shown value, and in `invalid` why the comparison could not fail or
    could not be made. `margin` is the largest share of a tolerance that was used. A `given` value
    has no expected one: only its structure, shape, dtype, device and finiteness are compared.
    """

    rule: Rule
    parameters: Mapping[str, Value]
    given: bool = False
    margin: float = 0.0
    faults: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    tolerances: set[str] = field(default_factory=set)

    def compare(self, shown: Comparable, expected: Comparable, path: str = "") -> None:
        """Compare two values, or their parts at `path`: first the structure, then each leaf."""
        if shown.kind != expected.kind:
            fault = f"shown is {shown.describe()}, expected is {expected.describe()}"
            self._add_fault(path, fault + _wrapping_hint(shown, expected))
        elif shown.kind in ("sequence", "mapping"):
            self._compare_items(shown.items, expected.items, path)
        elif shown.kind == "array":
            self._compare_arrays(shown, expected, path)
        elif shown.kind == "float":
            self._compare_numbers(shown, expected, "float64", "cpu", path)
        elif self.given and type(shown.value) is not type(expected.value):
            self._add_fault(
                path, f"shown {shown.value!r}, expected a value like {expected.value!r}"
            )
        elif not self.given and not _is_same(shown.value, expected.value):
            self._add_fault(path, f"shown {shown.value!r}, expected {expected.value!r}")

    def _compare_items(
        self, shown: Mapping[str, Comparable], expected: Mapping[str, Comparable], path: str
    ) -> None:
        if shown.keys() != expected.keys():
            names, wanted = ", ".join(shown) or "-", ", ".join(expected) or "-"
            self._add_fault(path, f"shown has the items {names}, expected {wanted}")
            return
        if list(shown) != list(expected):
            order = f"shown has its items in the order {', '.join(shown)}"
            self._add_fault(path, f"{order}, expected {', '.join(expected)}")
        for key, item in shown.items():
            self.compare(item, expected[key], f"{path}[{key}]")

    def _compare_arrays(self, shown: Comparable, expected: Comparable, path: str) -> None:
        dtype, device = self._expected_dtype(expected), self._expected_device(path)
        if shown.value.shape != expected.value.shape:
            self._add_fault(path, f"shape {shown.value.shape}, expected {expected.value.shape}")
        elif shown.dtype != dtype:
            self._add_fault(path, f"dtype {shown.dtype}, expected {dtype}")
        elif device == NUMPY and shown.device:
            self._add_fault(path, "shown is a tensor, expected an array of NumPy")
        elif device != NUMPY and not _is_on(shown.device or "cpu", device):
            self._add_fault(path, f"on {shown.device or 'cpu'}, expected on {device}")
        else:
            self._compare_numbers(shown, expected, dtype, device, path)

    def _compare_numbers(
        self, shown: Comparable, expected: Comparable, dtype: str, device: str, path: str
    ) -> None:
        if self.given:
            if not np.all(np.isfinite(shown.value)):
                self._add_fault(path, "not finite")
            return
        if expected.value.dtype.kind in "fc":
            self._compare_floating(shown.value, expected, dtype, device, path)
        else:
            self._require_equal(shown.value, expected.value, path)

    def _compare_floating(
        self, shown: np.ndarray, expected: Comparable, dtype: str, device: str, path: str
    ) -> None:
        rel = self.rule.rel if self.rule.rel is not None else relative_tolerance(dtype, device)
        if fault := _unfit(dtype, rel):
            self.invalid.append(fault)
            return
        assert rel is not None
        value, elementwise = expected.value, self.rule.elementwise
        scale = max(expected.scale, smallest_scale(value, dtype))
        if fault := self._too_wide(rel, magnitudes(value, elementwise), scale, expected.scale):
            self.invalid.append(fault)
            return
        self.tolerances.add(_describe(rel, self.rule.abs))
        self._require_equal(shown, value, path)
        if not rel and not self.rule.abs:
            self._require_same_zeros(shown, value, path)
        worst = largest_deviation(shown, value, rel, self.rule.abs, elementwise, scale)
        if not worst.is_allowed:
            at = worst.index
            self._add_fault(
                path,
                f"largest difference {worst.difference:.3g}{_at(at)}: shown {shown[at].item()!r}, "
                f"expected {value[at].item()!r}, allowed {worst.allowed:.3g}",
            )
        self.margin = max(self.margin, worst.share)

    def _too_wide(self, rel: float, own: np.ndarray, scale: float, terms: float) -> str:
        """Why the tolerance is too wide for the comparison to find anything; empty if it is not.

        `own` are the magnitudes of the expected elements, and `terms` is the size of their terms.
        """
        sizes = np.maximum(own, terms)
        if self.rule.abs and np.any(sizes == 0):
            return (
                f"abs={self.rule.abs:g} is any share of an expected zero: remove abs=, or say how "
                "large the terms of the value are, terms=…"
            )
        allowed = rel * np.maximum(own, scale) + self.rule.abs
        shares = allowed[sizes > 0] / sizes[sizes > 0]
        if np.any(shares >= COARSEST):
            whole = "element" if self.rule.elementwise else "largest expected value"
            return f"its tolerance is {np.max(shares):.1%} of the {whole}"
        if np.any((own > 0) & (allowed >= own)):
            return "its terms cancel so far that a value of zero would pass: use other parameters"
        return ""

    def _require_equal(self, shown: np.ndarray, expected: np.ndarray, path: str) -> None:
        at = first_unequal(shown, expected)
        if at is not None:
            wanted = expected[at].item()
            self._add_fault(path, f"shown {shown[at].item()!r}{_at(at)}, expected {wanted!r}")

    def _require_same_zeros(self, shown: np.ndarray, expected: np.ndarray, path: str) -> None:
        """Where numbers must be equal, 0 is not −0, since a reader sees the sign."""
        signs = (np.signbit(part.real) for part in (shown, expected))
        wrong = np.argwhere((shown == 0) & (expected == 0) & np.not_equal(*signs))
        if len(wrong):
            at = tuple(map(int, wrong[0]))
            wanted = expected[at].item()
            self._add_fault(path, f"shown {shown[at].item()!r}{_at(at)}, expected {wanted!r}")

    def reject_empty(self, value: Comparable) -> list[Comparable]:
        """Mark the comparison invalid if `value` has no content; its leaves that have some."""
        leaves = [leaf for leaf in value.leaves() if leaf.kind != "array" or leaf.value.size]
        if not leaves:
            self.invalid.append("is vacuous: its value is empty, so every empty value agrees")
        return leaves

    def reject_vacuous(self, expected: Comparable) -> None:
        """Mark the comparison invalid if nearly everything would agree with `expected`: a value
        that is empty, or zero throughout, as a tensor is that nobody has filled."""
        leaves = self.reject_empty(expected)
        numbers = [
            leaf.value
            for leaf in leaves
            if leaf.kind in ("array", "float") and leaf.value.dtype.kind != "b"
        ]
        telling = any(np.any(np.isfinite(number) & (number != 0)) for number in numbers)
        if numbers and not telling and not self.rule.zero:
            self.invalid.append(
                "is vacuous: the expected value is zero throughout, or not finite (if that is "
                "meant: zero=True)"
            )

    def _expected_dtype(self, expected: Comparable) -> str:
        if expected.dtype == "float64":
            return floating_dtype(self.rule, self.parameters)
        return expected.dtype or ""

    def _expected_device(self, path: str) -> str:
        """The device that the path names last, or that of the rule, or that of the lesson."""
        named = re.findall(r"\[((?:cpu|cuda)(?::\d+)?)\]", path)
        return named[-1] if named else self.rule.device or str(self.parameters.get("device", "cpu"))

    def _add_fault(self, path: str, fault: str) -> None:
        self.faults.append(f"{path}: {fault}" if path else fault)


def _is_same(shown: Any, expected: Any) -> bool:
    """Whether two plain values are equal and of one type: True is not 1."""
    return (type(shown), shown) == (type(expected), expected)


def _unfit(dtype: str, rel: float | None) -> str:
    """Why floating numbers cannot be compared as `dtype`; empty if they can."""
    if dtype.startswith(("int", "uint", "bool")):
        return f"its oracle returns floating numbers for {dtype}: return an array of {dtype}"
    if np.dtype(np.longdouble).name in dtype or np.dtype(np.clongdouble).name in dtype:
        return f"{dtype} is compared in float64 and would lose digits: show and return float64"
    return "" if rel is not None else f"no tolerance is known for {dtype}: say rel=… and why=…"


def _wrapping_hint(shown: Comparable, expected: Comparable) -> str:
    """What an oracle should return if one of the values is a Python value and the other a tensor of
    one element."""
    kinds = {shown.kind, expected.kind}
    if "array" not in kinds or not kinds & {"plain", "float"}:
        return ""
    array, single = (shown, expected) if shown.kind == "array" else (expected, shown)
    if array.value.shape or isinstance(single.value, str):
        return ""
    if array is expected:
        return f": for a Python value, the oracle returns {expected.value.item()!r}"
    names = {bool: "np.bool_", int: "np.int64"}
    name = names.get(type(expected.value), "np.float64")
    return f": for a tensor, the oracle returns {name}({expected.python()!r})"


def _describe(rel: float, absolute: float) -> str:
    """A tolerance as text: `2e-6 rel + 1e-9 abs`, or `exact` for none."""
    parts = [(rel, "rel"), (absolute, "abs")]
    text = [f"{size:.1e} {word}".replace(".0e", "e") for size, word in parts if size]
    return " + ".join(text).replace("e-0", "e-") or "exact"


def _at(index: tuple[int, ...]) -> str:
    return f" at {list(index)}" if index else ""


def _is_on(device: str, expected: str) -> bool:
    """Whether `device` is the expected one: `cuda:1` is on `cuda` and on `cuda:1`, not on `cuda:0`.

    NumPy's arrays are on the CPU.
    """
    return device == expected if ":" in expected else device.split(":")[0] == expected
