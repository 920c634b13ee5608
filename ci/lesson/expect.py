"""How an expected value is compared. Oracles import nothing else from the pipeline."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Rule:
    """How the value of an oracle is compared; see `expect` for its fields.

    Raises ValueError for a field that is not of its type, or a tolerance that is no tolerance.
    """

    rel: float | None = None
    abs: float = 0.0
    why: str = ""
    dtype: str | None = None
    device: str | None = None
    zero: bool = False
    constant: str = ""
    elementwise: bool = False

    def __post_init__(self) -> None:
        for name in ("rel", "abs"):
            _require_size(name, getattr(self, name), optional=name == "rel")
        for name in ("why", "dtype", "device", "constant"):
            _require(name, getattr(self, name), str, optional=name in ("dtype", "device"))
        for name in ("zero", "elementwise"):
            _require(name, getattr(self, name), bool)
        if (self.abs or self.rel) and not self.why.strip():
            raise ValueError("a tolerance needs a reason: write why=…")


def _require_size(name: str, value: object, *, optional: bool) -> None:
    if value is None and optional:
        return
    if type(value) not in (int, float) or not 0 <= value <= LARGEST:  # type: ignore[operator]
        raise ValueError(f"{name}={value!r} must be a finite number that is not negative")


def _require(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    if type(value) is not kind and not (value is None and optional):
        raise ValueError(f"{name}={value!r} must be a {kind.__name__}")


def expect(
    *,
    rel: float | None = None,
    abs: float = 0.0,
    why: str = "",
    dtype: str | None = None,
    device: str | None = None,
    zero: bool = False,
    constant: str = "",
    elementwise: bool = False,
    terms: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for an oracle whose value needs another comparison than the default.

    rel, abs   tolerance: max|shown - expected| <= rel * max|expected| + abs, per tensor; `rel=0`
               requires equal numbers; any other tolerance needs a reason, `why`
    dtype      of floating tensors, if it is neither the lesson's `dtype` nor float32
    device     "cpu" or "cuda", if it differs from the lesson's `device`; "numpy" if
               a tensor would be wrong in the place of an array of NumPy
    zero       the expected value is intentionally zero in every element
    constant   the reason why the value does not depend on the lesson's parameters
    elementwise  the tolerance is relative to each element, for elements of different magnitudes
    terms      for a sum whose terms may cancel: a function of some of the same arguments, which
               returns the sizes of the terms, added. Tolerances are relative to the largest of them
               if it exceeds the value. It has the structure of the value, or is one array or number
    """

    def attach(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            rule = Rule(rel, abs, why, dtype, device, zero, constant, elementwise)
            _require("terms", terms, FunctionType, optional=True)
        except ValueError as error:
            raise ValueError(f"@expect of '{function.__name__}': {error}") from None
        function.rule, function.terms = rule, terms  # type: ignore[attr-defined]
        return function

    return attach
