"""How an expected value is compared. Oracles import nothing else from the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """How the value of an oracle is compared; see `expect` for its fields."""

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
    """A decorator for an oracle whose value needs another comparison than the default.

    rel, abs   tolerance: max|shown - expected| <= rel * max|expected| + abs, per tensor; `rel=0`
               requires equal bits; any other tolerance needs a reason, `why`
    dtype      of floating tensors, if it is neither the lesson's `dtype` nor float32
    device     "cpu" or "cuda", if it differs from the lesson's `device`
    zero       the expected value is intentionally zero in every element
    constant   the reason why the value does not depend on the lesson's parameters
    elementwise  the tolerance is relative to each element, for elements of different magnitudes
    """
    if (abs or (rel is not None and rel != 0)) and not why:
        raise ValueError("a tolerance needs a reason: write why=…")
    rule = Rule(rel, abs, why, dtype, device, zero, constant, elementwise)

    def attach(function: Callable[..., Any]) -> Callable[..., Any]:
        function.rule = rule  # type: ignore[attr-defined]
        return function

    return attach
