"""The common form in which shown and expected values are compared."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:  # the kernel imports this module and starts without nbformat
    from nbformat import NotebookNode

LARGEST = 2**20  # bytes of an encoded value; students cannot read a larger one
MIME = "application/vnd.pytorch-course.value+json"  # private: removed from handouts


@dataclass(frozen=True)
class Comparable:
    """A sequence, a mapping, a plain value (bool, int, text), a Python float, or an array.

    `dtype` is that of an array; `device` is the device of a tensor, and None for a NumPy array.
    Floating values are stored in float64, which contains all values of the smaller types.
    """

    kind: Literal["sequence", "mapping", "plain", "float", "array"]
    value: Any = None
    dtype: str | None = None
    device: str | None = None
    items: Mapping[str, "Comparable"] = field(default_factory=dict)

    def leaves(self) -> Iterator["Comparable"]:
        """The plain values, floats and arrays in the value."""
        if self.kind not in ("sequence", "mapping"):
            yield self
        for item in self.items.values():
            yield from item.leaves()

    def devices(self) -> set[str]:
        """The devices of its tensors."""
        return {leaf.device for leaf in self.leaves() if leaf.device}

    def describe(self) -> str:
        """Kind and size of the value, for a message."""
        match self.kind:
            case "array":
                return f"an array of shape {self.value.shape}"
            case "float" | "plain":
                return repr(self.python())
            case _:
                return f"a {self.kind} of {len(self.items)}"

    def text(self) -> str:
        """The value as a short text for a table: a few elements with six digits."""
        match self.kind:
            case "array":
                short = np.array2string(self.value, precision=6, threshold=8, edgeitems=2)
                return " ".join(short.split())
            case "float":
                return f"{float(self.value):.6g}"
            case "plain":
                return str(self.value)
        named = self.kind == "mapping"
        parts = [f"{k}: {v.text()}" if named else v.text() for k, v in self.items.items()]
        return f"({', '.join(parts[:4])}{', …' if len(parts) > 4 else ''})"

    def python(self) -> Any:
        """The value as an oracle gets it as a given: a NumPy array or scalar, or a Python value."""
        match self.kind:
            case "sequence":
                return [item.python() for item in self.items.values()]
            case "mapping":
                return {key: item.python() for key, item in self.items.items()}
            case "float":
                return float(self.value)
            case "array":
                return self.value[()]
        return self.value


def encode(value: Any) -> dict[str, Any]:
    """`value` as plain JSON: its kind, and everything needed to compare it bit by bit.

    Never raises: a value that cannot be read becomes `{"kind": "unreadable", "why": …}`.
    """
    try:
        encoded = _encode(value)
        size = len(json.dumps(encoded))
    except Exception as error:  # a shown value can be any object, and a display hook must not raise
        return {"kind": "unreadable", "why": f"{type(value).__name__}: {error}"}
    if size > LARGEST:
        return {"kind": "unreadable", "why": f"{size} bytes, more than {LARGEST}"}
    return encoded


def _encode(value: Any) -> dict[str, Any]:
    # Exact types, because a subclass can show the student another value than it contains.
    if value is None or type(value) in (bool, int, str):
        return {"kind": "plain", "value": value}
    if type(value) is float:
        return {"kind": "float", "value": repr(value)}  # JSON has no NaN
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return _array(np.asarray(value), str(value.dtype), None)
    if isinstance(value, list | tuple):
        return {"kind": "sequence", "items": [_encode(item) for item in value]}
    if isinstance(value, dict):
        # Pairs, because a notebook file sorts the keys of objects.
        if len({_key_text(key) for key in value}) < len(value):
            raise TypeError("two keys with the same text")
        return {"kind": "mapping", "items": [[_key_text(k), _encode(v)] for k, v in value.items()]}
    if isinstance(value, type):
        return {"kind": "plain", "value": f"{value.__module__}.{value.__qualname__}"}
    return _encode_torch(value)


def _key_text(key: Any) -> str:
    """A key as text: in quotes if it is a text that looks like a number, since 1 is not "1"."""
    is_number = isinstance(key, str) and re.fullmatch(r"[-+.\d(].*|True|False|None", key)
    return repr(key) if is_number else str(key)


def _encode_torch(value: Any) -> dict[str, Any]:
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        dtype = str(value.dtype).removeprefix("torch.")
        if tensor.dtype == torch.bfloat16:  # which NumPy lacks; float32 contains all its values
            tensor = tensor.float()
        return _array(tensor.numpy(), dtype, str(value.device))
    if isinstance(value, torch.dtype | torch.device):
        return {"kind": "plain", "value": str(value)}
    raise TypeError("a check cannot read this type")


def _array(array: np.ndarray, dtype: str, device: str | None) -> dict[str, Any]:
    if array.dtype.kind not in "biufc":
        raise TypeError(f"an array of {array.dtype}")
    return {
        "kind": "array",
        "dtype": dtype,
        "shape": list(array.shape),
        "device": device,
        "stored": array.dtype.newbyteorder("<").str,
        "data": base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode(),
    }


def shown_value(cell: "NotebookNode") -> Comparable:
    """The value that an executed cell displayed. Raises ValueError unless there is exactly one."""
    if cell.execution_count is None:
        raise ValueError("its cell never ran")
    results = [out for out in cell.outputs if out.output_type == "execute_result"]
    if len(results) != 1:
        raise ValueError(f"its cell shows {len(results) or 'no'} values")
    if MIME not in results[0].data:
        raise ValueError("its value was not recorded by the kernel")
    return _decode(results[0].data[MIME])


def _decode(value: Mapping[str, Any]) -> Comparable:
    match value["kind"]:
        case "plain":
            return Comparable("plain", value["value"])
        case "float":
            return Comparable("float", np.float64(value["value"]))
        case "sequence":
            items = {str(i): _decode(item) for i, item in enumerate(value["items"])}
            return Comparable("sequence", items=items)
        case "mapping":
            items = {key: _decode(item) for key, item in value["items"]}
            return Comparable("mapping", items=items)
        case "array":
            data = np.frombuffer(base64.b64decode(value["data"]), dtype=value["stored"])
            array = data.reshape(value["shape"])
            wide = array.astype(np.float64) if array.dtype.kind == "f" else array
            return Comparable("array", wide, value["dtype"], value["device"])
    raise ValueError(f"its value cannot be read: {value.get('why', value['kind'])}")


def expected_value(value: Any) -> Comparable:
    """The value that an oracle returned. Raises TypeError if no shown value can equal it."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"the oracle returns an array of {array.dtype}: not comparable")
        return Comparable("array", array, str(array.dtype))
    if type(value) is float:
        return Comparable("float", np.float64(value))
    if type(value) in (bool, int, str):
        str(value).encode()  # raises ValueError for 10**5000 and for half of a surrogate pair
        return Comparable("plain", value)
    if isinstance(value, list | tuple):
        items = {str(i): expected_value(item) for i, item in enumerate(value)}
        return Comparable("sequence", items=items)
    if isinstance(value, dict):
        items = {_key_text(key): expected_value(item) for key, item in value.items()}
        return Comparable("mapping", items=items)
    if value is None:
        raise TypeError(
            "the oracle returns None: is its `return` missing? To check that a value is None, end "
            "the cell in `value is None` and return True"
        )
    raise TypeError(f"the oracle returns {type(value).__name__}: not comparable")
