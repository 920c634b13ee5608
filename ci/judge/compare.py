"""One shown value against one expected value: structure, shape, dtype, device, then numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ci.handout.self_check import RELATIVE, RELATIVE_ON_GPU
from ci.lesson.expect import Rule
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable

COARSEST = 0.01  # of the largest expected value: a tolerance as wide as this checks nothing


@dataclass
class Comparison:
    """One shown value against one expected value, leaf by leaf. Collects what it finds:
    `faults` of the shown value, `invalid` for a comparison that could not fail or be made."""

    rule: Rule
    parameters: Mapping[str, Value]
    given: bool = False
    margin: float = 0.0
    faults: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    tolerances: set[str] = field(default_factory=set)

    def compare(self, shown: Comparable, expected: Comparable, path: str = "") -> None:
        """Structure first, then each leaf; `path` is where in the value we are."""
        if shown.kind != expected.kind:
            self._differ(path, f"shown is {shown.describe()}, expected is {expected.describe()}")
        elif shown.kind in ("sequence", "mapping"):
            if shown.items.keys() != expected.items.keys():
                ours, theirs = ", ".join(shown.items), ", ".join(expected.items)
                self._differ(path, f"shown has the items {ours or '-'}, expected {theirs or '-'}")
                return
            for key, item in shown.items.items():
                self.compare(item, expected.items[key], f"{path}[{key}]")
        elif shown.kind == "array":
            self._compare_arrays(shown, expected, path)
        elif shown.kind == "float":
            self._compare_numbers(shown.value, expected.value, "float64", "cpu", path)
        elif not self.given and (type(shown.value), shown.value) != (
            type(expected.value),
            expected.value,
        ):
            self._differ(path, f"shown {shown.value!r}, expected {expected.value!r}")

    def _compare_arrays(self, shown: Comparable, expected: Comparable, path: str) -> None:
        dtype, device = self._dtype(expected), self._device(path)
        if shown.value.shape != expected.value.shape:
            self._differ(path, f"shape {shown.value.shape}, expected {expected.value.shape}")
        elif shown.dtype != dtype:
            self._differ(path, f"dtype {shown.dtype}, expected {dtype}")
        elif not _lives_on(shown.device or "cpu", device):
            self._differ(path, f"on {shown.device or 'cpu'}, expected on {device}")
        else:
            self._compare_numbers(shown.value, expected.value, dtype, device, path)

    def _compare_numbers(
        self, shown: np.ndarray, expected: np.ndarray, dtype: str, device: str, path: str
    ) -> None:
        if self.given:
            if not np.all(np.isfinite(shown)):
                self._differ(path, "not finite")
            return
        if expected.dtype.kind not in "fc":
            self._require_same(shown, expected, shown == expected, path)
            return
        finite = np.isfinite(expected)
        sizes = np.where(finite, np.abs(expected), 0.0)
        if not self.rule.elementwise:
            sizes = np.full_like(sizes, np.max(sizes, initial=0.0))
        allowed = self._allowed(sizes, dtype, device)
        if allowed is None:
            return
        same = (shown == expected) | (np.isnan(shown) & np.isnan(expected))
        self._require_same(shown, expected, same | finite, path)
        with np.errstate(invalid="ignore", divide="ignore"):  # inf - inf, 0 / 0
            difference = np.where(finite, np.abs(shown - expected), 0.0)
            used = np.where(difference == 0, 0.0, difference / allowed)
        if not np.all(used <= 1):  # so that a NaN is a fault
            worst = int(np.argmax(np.nan_to_num(used, nan=np.inf)))
            at = np.unravel_index(worst, shown.shape)
            self._differ(
                path,
                f"largest difference {difference[at]:.3g}{_at(at)}: shown {shown[at].item()!r}, "
                f"expected {expected[at].item()!r}, allowed {allowed[at]:.3g}",
            )
        self.margin = max(self.margin, float(np.max(used, initial=0.0)))

    def _allowed(self, sizes: np.ndarray, dtype: str, device: str) -> np.ndarray | None:
        """The largest difference that each element may show, where its tolerance is relative to
        `sizes`; None where that can't be said."""
        rel = self.rule.rel
        if rel is None:
            on_gpu = device.startswith("cuda") and dtype in RELATIVE_ON_GPU
            rel = RELATIVE_ON_GPU[dtype] if on_gpu else RELATIVE.get(dtype)
        if rel is None:
            self.invalid.append(f"no tolerance is known for {dtype}: say rel=… and why=…")
            return None
        allowed = rel * sizes + self.rule.abs
        shares = allowed[sizes > 0] / sizes[sizes > 0]
        if np.any(shares >= COARSEST):
            whole = "element" if self.rule.elementwise else "largest expected value"
            self.invalid.append(f"its tolerance is {np.max(shares):.1%} of the {whole}")
            return None
        self.tolerances.add(_tolerance(rel, self.rule.abs))
        return np.asarray(allowed)

    def _require_same(
        self, shown: np.ndarray, expected: np.ndarray, same: np.ndarray, path: str
    ) -> None:
        if not np.all(same):
            at = tuple(np.argwhere(~np.asarray(same))[0])
            theirs = expected[at].item()
            self._differ(path, f"shown {shown[at].item()!r}{_at(at)}, expected {theirs!r}")

    def refuse_vacuous(self, expected: Comparable) -> None:
        """A check that expects nothing but zeros passes for a tensor that nobody has filled."""
        leaves = list(expected.leaves())
        if not leaves:
            self.invalid.append("is vacuous: the expected value is empty")
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

    def _dtype(self, expected: Comparable) -> str:
        if expected.dtype == "float64":
            return self.rule.dtype or str(self.parameters.get("dtype", "float32"))
        return expected.dtype or ""

    def _device(self, path: str) -> str:
        """A leaf under a device's name lives there; others where the rule or the lesson says."""
        named = re.findall(r"\[((?:cpu|cuda)(?::\d+)?)\]", path)
        return named[-1] if named else self.rule.device or str(self.parameters.get("device", "cpu"))

    def _differ(self, path: str, fault: str) -> None:
        self.faults.append(f"{path}: {fault}" if path else fault)


def _tolerance(rel: float, absolute: float) -> str:
    """`2e-6 rel + 1e-9 abs`; `exact` for none."""
    parts = [(rel, "rel"), (absolute, "abs")]
    said = [f"{size:.1e} {word}".replace(".0e", "e") for size, word in parts if size]
    return " + ".join(said).replace("e-0", "e-") or "exact"


def _at(index: tuple[Any, ...]) -> str:
    return f" at [{', '.join(str(int(i)) for i in index)}]" if index else ""


def _lives_on(device: str, expected: str) -> bool:
    """`cuda:1` is on `cuda` and on `cuda:1`, not on `cuda:0`. NumPy's arrays are on the CPU."""
    return device == expected if ":" in expected else device.split(":")[0] == expected
