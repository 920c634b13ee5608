"""The value that the kernel's display hook attaches to a message."""

import numpy as np
import pytest
import torch

from ci.lesson.value import LARGEST, _decode, encode, expected_value


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0.1, 1e-40, float("nan")]),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor(3.0, requires_grad=True),
        torch.tensor([1 + 2j]).conj(),
        torch.zeros(0, 3),
        torch.tensor([1.5], dtype=torch.bfloat16),
    ],
)
def test_a_tensor_is_restored_bit_by_bit(tensor: torch.Tensor) -> None:
    """Even if it is strided, conjugated, empty, or part of a graph."""
    plain = tensor.detach().resolve_conj()
    expected = plain.float() if plain.dtype == torch.bfloat16 else plain
    np.testing.assert_array_equal(_decode(encode(tensor)).value, expected.numpy())


class MisleadingFloat(float):
    """A float whose text shows another number."""

    def __repr__(self) -> str:
        return "9.0"


UNREADABLE = [
    *(object(), lambda: 1, {1}, [object()], MisleadingFloat(1.0)),
    torch.ones(2).to_sparse(),
    np.ma.masked_array([1.0, 2.0], [True, False]),
    np.array(["a"]),
    {torch.float32: 999, "torch.float32": 2},
]


@pytest.mark.parametrize("value", UNREADABLE)
def test_an_unreadable_value_has_a_reason(value: object) -> None:
    """The hook does not raise; the check that needs the value fails with the reason."""
    assert encode(value)["kind"] == "unreadable"
    with pytest.raises(ValueError, match="cannot be read"):
        _decode(encode(value))


def test_a_huge_value_is_not_attached() -> None:
    """It would make the notebook too large, and no student could read it."""
    assert str(LARGEST) in encode(torch.zeros(LARGEST))["why"]


def test_a_later_change_does_not_affect_a_shown_value() -> None:
    """The bytes are copied when the value is shown."""
    tensor = torch.ones(2)
    shown = encode(tensor)
    tensor.zero_()
    assert _decode(shown).value.tolist() == [1.0, 1.0]


def test_keys_of_different_types_are_different() -> None:
    """A check of `{"1": 4.0}` does not accept `{1: 4.0}`."""
    shown = _decode(encode({1: 4.0, None: 5.0, "1": 6.0, "a": 7.0, 2.5: 8.0}))
    assert list(shown.items) == ["1", "None", "'1'", "a", "2.5"]
    assert shown.python() == {1: 4.0, None: 5.0, "1": 6.0, "a": 7.0, 2.5: 8.0}
    assert expected_value({"1": 4.0}).items.keys() != expected_value({1: 4.0}).items.keys()
