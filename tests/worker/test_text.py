"""The text of a shown value."""

import collections
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from IPython.core.formatters import PlainTextFormatter

from ci.lesson.value import _decode, encode
from ci.worker.text import encode_with_text

Pair = collections.namedtuple("Pair", "first second")
VALUES = [
    *(None, True, 1, 2.5, float("nan"), "a\n'b", [1, 2.5, "x"], (1,), (), {}, [None, True]),
    *(torch.zeros(2, 3), torch.ones(2, requires_grad=True) * 2, torch.zeros(0, 3)),
    *(torch.nn.Parameter(torch.ones(2, 3)), torch.arange(3.0, dtype=torch.float64)),
    *(torch.arange(2000.0), torch.tensor([1e-10, 1.0]), torch.tensor([1 + 2j]).conj()),
    *(torch.tensor([1.5], dtype=torch.bfloat16), torch.tensor([True]), torch.eye(3).T),
    *(torch.Size([2, 3]), torch.Size([]), torch.device("cuda:1"), torch.device("cpu")),
    *(torch.float16, int, torch.nn.Linear, torch.eye(2).max(dim=0), Pair(1, torch.eye(2))),
    *(np.float32(0.1), np.bool_(True), np.array(3.0), np.arange(12.0).reshape(3, 4) / 7),
    *(np.array([1, 2], dtype=">i4"), np.longdouble(1) / 3, np.complex64(1j), np.arange(2000)),
    *(list(range(60)), [torch.eye(3), torch.eye(3)], {"a": torch.eye(2), 1: (2, [3])}),
    *(collections.OrderedDict(a=1), collections.Counter("abca"), collections.Counter()),
    *(collections.OrderedDict.fromkeys(range(30)), collections.Counter(range(30))),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_the_text_is_that_of_jupyter(value: Any) -> None:
    """A lesson looks the same in a notebook of one's own."""
    assert encode_with_text(value)[1] == PlainTextFormatter()(value)


class MisleadingList(list):  # type: ignore[type-arg]
    """A list whose text shows another number."""

    def __repr__(self) -> str:
        return "[42.0]"


class MisleadingDict(dict):  # type: ignore[type-arg]
    """A dict whose text rounds."""

    def __repr__(self) -> str:
        return "accuracy 100%"


class MisleadingTensor(torch.Tensor):
    """A tensor whose text shows another number."""

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return "tensor(42.)"


@pytest.mark.parametrize(
    "value",
    [
        *(MisleadingList([4.0]), MisleadingDict(accuracy=0.996), [MisleadingList([4.0])]),
        torch.tensor(4.0).as_subclass(MisleadingTensor),
        *("\udcff", {"\ud800": 1}, ["\udcff"]),
    ],
    ids=str,
)
def test_a_value_with_another_text_is_unreadable(value: Any) -> None:
    """A check of it fails by name."""
    assert encode_with_text(value)[0]["kind"] == "unreadable"


def test_a_patched_text_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither torch's nor NumPy's."""
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda tensor: "tensor(42.)")
    monkeypatch.setattr(torch._tensor_str, "_str", lambda *_, **__: "tensor(42.)")
    monkeypatch.setattr(np, "array_repr", lambda *_: "array(42.)")
    assert encode_with_text(torch.tensor(4.5))[1] == "tensor(4.5000)"
    assert encode_with_text(np.array([4.5]))[1] == "array([4.5])"


@pytest.fixture
def print_options() -> Iterator[None]:
    """Print options that are set back after the test."""
    with np.printoptions():
        yield
    torch.set_printoptions(profile="default", sci_mode=None)
    torch._tensor_str.PRINT_OPTS.sci_mode = None


@pytest.mark.usefixtures("print_options")
@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"precision": 0, "suppress": True}, np.array([0.4, 4.4])),
        ({"precision": 3}, [np.array([0.4])]),
        ({"suppress": True}, np.array([1e-9, 1.0])),
        ({"precision": 0}, torch.tensor(4.4)),
        ({"sci_mode": False}, torch.tensor([1e-9, 1.0])),
    ],
    ids=str,
)
def test_options_that_hide_digits_are_a_fault(options: dict[str, Any], value: Any) -> None:
    """The reader would compare less than the check."""
    (torch if isinstance(value, torch.Tensor) else np).set_printoptions(**options)
    encoded, text = encode_with_text(value)
    assert (encoded["kind"], text) == ("unreadable", "")
    assert "print option" in encoded["why"] and "hides digits" in encoded["why"]


@pytest.mark.usefixtures("print_options")
def test_options_that_show_more_or_elide_are_used() -> None:
    """More digits, longer lines, visible ellipses; and nothing that replaces a number."""
    torch.set_printoptions(precision=6, sci_mode=False, threshold=2, edgeitems=0)
    np.set_printoptions(precision=10, nanstr="0", formatter={"float": lambda number: "42"})
    assert encode_with_text(torch.tensor(1 / 3))[1] == "tensor(0.333333)"
    assert encode_with_text(torch.arange(9))[1] == "tensor([0,  ..., 8])"
    assert encode_with_text(np.array([1 / 3, np.nan]))[1] == "array([0.3333333333,          nan])"


PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(), st.text(max_size=9)),
)
DTYPES = st.sampled_from(["float32", "float64", "int64", "bool", "uint8"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)
WITHIN = {"min_value": -(2.0**100), "max_value": 2.0**100}  # else a text rounds to inf
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        SHAPES,
        elements=arrays.from_dtype(np.dtype(dtype), **WITHIN) | st.sampled_from([np.nan, np.inf])
        if "float" in dtype
        else arrays.from_dtype(np.dtype(dtype)),
    )
)
LEAVES = PLAIN | ARRAYS | ARRAYS.map(lambda array: torch.from_numpy(np.array(array)))
EXAMPLES = int(os.environ.get("COURSE_EXAMPLES", "150"))  # as in tests/reports
VALUES_OF_ALL_KINDS = st.recursive(
    LEAVES,
    lambda items: (
        st.lists(items, max_size=3)
        | st.lists(items, max_size=3).map(tuple)
        | st.dictionaries(PLAIN, items, max_size=3)
    ),
    max_leaves=5,
)
NAMES = {
    **{"array": np.array, "float32": np.float32, "nan": np.nan, "inf": np.inf, "uint8": np.uint8},
    **{"tensor": lambda value, **_: np.array(value), "torch": torch, "size": 0, "np": np},
}


def _agree(read: Any, value: Any) -> bool:
    """Whether the value that was read from a text is `value`, up to the digits of the text."""
    if isinstance(value, list | tuple):
        same = type(read) is type(value) and len(read) == len(value)
        return same and all(map(_agree, read, value))
    if isinstance(value, dict):
        return _agree([*read.keys()], [*value.keys()]) and _agree(
            [*read.values()], [*value.values()]
        )
    if isinstance(value, torch.Tensor | np.ndarray):
        wanted = np.asarray(value)
        found = np.asarray(read).reshape(wanted.shape)
        if wanted.dtype.kind != "f":
            return bool(np.array_equal(found, wanted))
        finite = wanted[np.isfinite(wanted)].astype(float)
        # torch's default shows four decimals, and as many of the mantissa in exponents
        room = max(6e-5, 6e-5 * float(np.max(np.abs(finite), initial=0)))
        return bool(np.allclose(found, wanted, rtol=0, atol=room, equal_nan=True))
    return type(read) is type(value) and (read == value or (read != read and value != value))


@settings(max_examples=EXAMPLES, deadline=None)
@given(VALUES_OF_ALL_KINDS)
def test_text_and_encoding_agree(value: Any) -> None:
    """What is read back from the text, and what the judge decodes, is the value that was shown."""
    encoded, text = encode_with_text(value)
    if encoded["kind"] == "unreadable":
        assert "two keys" in encoded["why"]
        return
    assert _agree(eval(text, dict(NAMES)), value)
    assert _same(_decode(encoded).python(), _decode(encode(value)).python())


def _same(first: Any, second: Any) -> bool:
    return repr(first) == repr(second)
