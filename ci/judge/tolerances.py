"""How far a shown array may be from its expected value.

Both the course's checks and the self-checks in the exercises' notebooks decide by this module. The
notebooks contain its source, so it needs only NumPy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# The default relative tolerance of each floating dtype.
RELATIVE = {"float64": 1e-12, "float32": 2e-6, "complex128": 1e-12, "complex64": 2e-6}
# On a GPU, parallel reductions round in another order.
RELATIVE_ON_GPU = {"float32": 1e-5, "complex64": 1e-5}
# The smallest number of each dtype that has all of its digits: below, rounding is absolute.
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126}
SMALLEST_NORMAL |= {"complex128": 2.0**-1022, "complex64": 2.0**-126, "bfloat16": 2.0**-126}


@dataclass(frozen=True)
class Deviation:
    """The element that takes the largest share of its allowed difference: at most 1 is right.

    The share is NaN where the difference is NaN, infinite where no difference is allowed.
    """

    index: tuple[int, ...]
    difference: float
    allowed: float
    share: float

    @property
    def is_allowed(self) -> bool:
        """Whether no element differs by more than it may; a NaN does."""
        return self.share <= 1


def relative_tolerance(dtype: str, device: str) -> float | None:
    """The default relative tolerance of `dtype` on `device`; None if the dtype has no default."""
    on_gpu = RELATIVE_ON_GPU if device.startswith("cuda") else {}
    return on_gpu.get(dtype, RELATIVE.get(dtype))


def smallest_scale(expected: Any, dtype: str) -> float:
    """The least magnitude that a relative tolerance refers to, unless `expected` is zero."""
    return SMALLEST_NORMAL.get(dtype, 0.0) if np.any(expected) else 0.0


def magnitudes(expected: Any, elementwise: bool) -> Any:
    """For each element, the magnitude that a relative tolerance refers to: the largest of all
    finite elements, or the element's own if `elementwise`."""
    sizes = np.where(np.isfinite(expected), _size(expected), 0.0)
    return sizes if elementwise else np.full_like(sizes, np.max(sizes, initial=0.0))


def _size(numbers: Any) -> Any:
    """The size of each element: of a complex one, that of its larger part, which cannot overflow
    as the modulus can."""
    return np.maximum(np.abs(numbers.real), np.abs(numbers.imag))


def first_unequal(shown: Any, expected: Any) -> tuple[int, ...] | None:
    """The index of the first element that must equal its expected value and does not.

    Integers and truth values must be equal; of floating elements, NaN and infinities must be.
    """
    equal = _same(shown.real, expected.real) & _same(shown.imag, expected.imag)
    if expected.dtype.kind in "fc":
        equal = equal | np.isfinite(expected)
    wrong = np.argwhere(~np.asarray(equal))
    return tuple(map(int, wrong[0])) if len(wrong) else None


def _same(shown: Any, expected: Any) -> Any:
    return (shown == expected) | ((shown != shown) & (expected != expected))


def largest_deviation(
    shown: Any,
    expected: Any,
    rel: float,
    absolute: float = 0.0,
    elementwise: bool = False,
    scale: float = 0.0,
) -> Deviation:
    """The worst element of floating arrays: `rel` times its magnitude plus `absolute` is allowed.

    The magnitude is at least `scale`, the size of the terms whose sum the element is. Elements that
    are expected to be NaN or infinite are left to `first_unequal`.
    """
    if not expected.size:
        return Deviation((), 0.0, 0.0, 0.0)
    wide = shown.astype(np.float64) if shown.dtype.kind == "f" else shown
    allowed = rel * np.maximum(magnitudes(expected, elementwise), scale) + absolute
    with np.errstate(all="ignore"):  # inf - inf, 0 / 0, 1e300 / 1e-12
        difference = np.where(np.isfinite(expected), _size(wide - expected), 0.0)
        share = np.where(difference == 0, 0.0, difference / allowed)
    worst = np.argmax(np.where(np.isnan(share), np.inf, share))
    index = tuple(map(int, np.unravel_index(worst, share.shape)))
    return Deviation(index, float(difference[index]), float(allowed[index]), float(share[index]))
