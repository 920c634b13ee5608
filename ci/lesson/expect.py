"""How an expected value is compared: what oracles import from the pipeline, and all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """How an oracle wants to be compared; see `expect`."""

    rel: float | None = None
    abs: float = 0.0
    why: str = ""
    dtype: str | None = None
    device: str | None = None
    zero: bool = False
    constant: str = ""
    elementwise: bool = False


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
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say how an oracle is compared, where the defaults don't fit.

    rel, abs   tolerance: max|shown - expected| <= rel * max|expected| + abs, per tensor; `rel=0`
               asks for equal bits. Anything but that needs a reason, `why`.
    dtype      of floating tensors, where it is neither the lesson's `dtype` nor float32
    device     "cpu" or "cuda", where it is not that of the lesson's `device`
    zero       the expected value is zero throughout, and that is meant
    constant   why the value does not depend on the lesson's parameters
    elementwise  the tolerance is relative to each element, where they differ by magnitudes
    """
    if (abs or (rel is not None and rel != 0)) and not why:
        raise ValueError("a tolerance of one's own wants a reason: why=…")
    rule = Rule(rel, abs, why, dtype, device, zero, constant, elementwise)

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.rule = rule  # type: ignore[attr-defined]
        return function

    return mark
