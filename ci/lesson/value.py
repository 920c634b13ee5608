"""The common form in which shown and expected values are compared."""

import ast
import base64
import contextlib
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ci.lesson.node import NotebookNode

LARGEST = 2**20  # bytes of an encoded value; students cannot read a larger one
DEEPEST = 100  # levels of lists in lists; a notebook of many more cannot be read
DIGITS = 4300  # of an integer: Python reads no more, unless told to
MAPPINGS = (dict, OrderedDict, Counter)
# The beginning of a key's text that could be the text of another key than a string:
LITERAL = re.compile(r"""['"\[]|[-+.]?\d|(True|False|None|nan|-?inf)$""")
LeafText = Callable[[Any, np.ndarray], str]
MIME = "application/vnd.pytorch-course.value+json"  # private: removed from handouts


@dataclass(frozen=True)
class Comparable:
    """A sequence, a mapping, a plain value (bool, int, text), a Python float, or an array.

    `dtype` is that of an array; `device` is the device of a tensor, and None for a NumPy array.
    `scale` is the size of the largest terms whose sum an expected element is, if they are known.
    Floating values are stored in float64, which contains all values of the smaller types.
    """

    kind: Literal["sequence", "mapping", "plain", "float", "array"]
    value: Any = None
    dtype: str | None = None
    device: str | None = None
    scale: float = 0.0
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
                return {_python_key(key): item.python() for key, item in self.items.items()}
            case "float":
                return float(self.value)
            case "array":
                return self.value[()]
        return self.value


def _python_key(text: str) -> Any:
    """The key of a mapping that `_key` identifies by `text`."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        if LITERAL.match(text):
            key = ast.literal_eval(text)
            return tuple(key) if isinstance(key, list) else key
    return text


def encode(value: Any, text: LeafText = lambda value, stored: "") -> dict[str, Any]:
    """`value` as plain JSON: its kind, and everything needed to compare it bit by bit.

    `text(value, stored)` makes the text of an array or tensor from its stored copy. Never raises: a
    value that cannot be read becomes `{"kind": "unreadable", "why": …}`.
    """
    try:
        encoded = _encode(value, text)
        size = len(json.dumps(encoded))
    except Exception as error:  # a shown value can be any object, and a display hook must not raise
        return {"kind": "unreadable", "why": f"{type(value).__name__}: {_message(error)}"}
    if size > LARGEST:
        return {"kind": "unreadable", "why": f"{size} bytes, more than {LARGEST}"}
    return encoded


def _message(error: Exception) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return type(error).__name__


def _encode(value: Any, text: LeafText, depth: int = 0) -> dict[str, Any]:
    if depth > DEEPEST:
        raise TypeError(f"nested more than {DEEPEST} levels")
    # Exact types, because a subclass can show the student another value than it contains.
    kind = type(value)
    if kind is str:
        value.encode()  # raises for a lone surrogate, which no file can hold
    if kind is int and abs(value) >= 10**DIGITS:
        raise ValueError(f"more than {DIGITS} digits")
    if value is None or kind in (bool, int, str):
        return {"kind": "plain", "value": value}
    if kind is float:
        return {"kind": "float", "value": repr(value)}  # JSON has no NaN
    if kind is np.ndarray or (isinstance(value, np.generic) and kind is value.dtype.type):
        return _array(value, np.asarray(value), str(value.dtype), None, text)
    if kind in (list, tuple) or _has_named_items(value):
        items = [_encode(item, text, depth + 1) for item in value]
        return {"kind": "sequence", **_sequence_type(value), "items": items}
    if kind in MAPPINGS:
        # Pairs, because a notebook file sorts the keys of objects.
        shown = value.most_common() if kind is Counter else value.items()  # in the order shown
        pairs = [[_encode(part, text, depth + 1) for part in pair] for pair in shown]
        if len({_key(_decode(key)) for key, _ in pairs}) < len(value):
            raise TypeError("two keys with the same text")
        return {"kind": "mapping", "type": kind.__name__, "items": pairs}
    if isinstance(value, type):
        return {"kind": "plain", "type": "type", "value": kind_name(value)}
    return _encode_torch(value, text)


def kind_name(value: type) -> str:
    """Module and name of a class."""
    return f"{value.__module__}.{value.__qualname__}"


def _has_named_items(value: Any) -> bool:
    """Whether it is a named tuple, or one of torch's types that are like it."""
    kind = type(value)
    named = issubclass(kind, tuple) and (hasattr(kind, "_fields") or hasattr(kind, "n_fields"))
    return (named or kind_name(kind) == "torch.Size") and kind.__iter__ is tuple.__iter__


def _sequence_type(value: Any) -> dict[str, Any]:
    """What the text of a sequence shows besides its items."""
    kind = type(value)
    name = kind_name(kind) if kind.__module__.split(".")[0] == "torch" else kind.__name__
    if kind in (list, tuple) or name == "torch.Size":
        return {"type": name}
    names = list(kind._fields if hasattr(kind, "_fields") else kind.__match_args__)
    if len({*names}) != len(value):
        raise TypeError("not each of its items has a name of its own")
    return {"type": name, "names": names}


def _encode_torch(value: Any, text: LeafText) -> dict[str, Any]:
    import torch

    if type(value) in (torch.Tensor, torch.nn.Parameter):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        dtype = str(value.dtype).removeprefix("torch.")
        if tensor.dtype == torch.bfloat16:  # which NumPy lacks; float32 contains all its values
            tensor = tensor.float()
        return _array(value, tensor.numpy(), dtype, str(value.device), text)
    if isinstance(value, torch.dtype):
        return {"kind": "plain", "type": "dtype", "value": str(value)}
    if isinstance(value, torch.device):
        return {"kind": "plain", "type": "device", "value": str(value)}
    raise TypeError("a check cannot read this type")


def _array(
    value: Any, array: np.ndarray, dtype: str, device: str | None, text: LeafText
) -> dict[str, Any]:
    if array.dtype.kind not in "biufc":
        raise TypeError(f"an array of {array.dtype}")
    stored = array.astype(array.dtype.newbyteorder("<"))  # a copy
    return {
        "kind": "array",
        "dtype": dtype,
        "shape": list(array.shape),
        "device": device,
        "stored": stored.dtype.str,
        "data": base64.b64encode(stored.tobytes()).decode(),
        "text": text(value, stored),
    }


def shown_value(cell: NotebookNode) -> Comparable:
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
            if "names" in value and not value["type"].startswith("torch."):
                named = dict(zip(value["names"], items.values(), strict=True))
                return Comparable("mapping", items=named)  # the reader sees the names
            return Comparable("sequence", items=items)
        case "mapping":
            items = {_key(_decode(key)): _decode(item) for key, item in value["items"]}
            return Comparable("mapping", items=items)
        case "array":
            data = np.frombuffer(base64.b64decode(value["data"]), dtype=value["stored"])
            array = data.reshape(value["shape"])
            wide = array.astype(np.float64) if array.dtype.kind == "f" else array
            return Comparable("array", wide, value["dtype"], value["device"])
    raise ValueError(f"its value cannot be read: {value.get('why', value['kind'])}")


def with_scale(value: Comparable, terms: Comparable) -> Comparable:
    """`value` with the largest of its `terms` in each leaf."""
    if value.items:
        items = {k: with_scale(v, terms.items.get(k, terms)) for k, v in value.items.items()}
        return replace(value, items=items)
    scale = max(float(np.max(np.abs(leaf.value), initial=0.0)) for leaf in terms.leaves())
    if not np.isfinite(scale):
        raise ValueError("the terms of a value must be finite")
    return replace(value, scale=scale)


def _expected_key(key: Any) -> Comparable:
    return Comparable("plain", None) if key is None else expected_value(key)


def _key(key: Comparable) -> str:
    """The text that identifies a key of a mapping: `1` for 1, and `'1'` for the text 1."""
    value = key.python()
    if isinstance(value, str):
        return repr(value) if LITERAL.match(value) else value
    return repr(value.item() if isinstance(value, np.generic) else value)


def expected_value(value: Any) -> Comparable:
    """The value that an oracle returned. Raises TypeError if no shown value can equal it."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("the oracle returns a masked array: return its elements, as by filled()")
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
    if hasattr(value, "_asdict"):  # a named tuple
        value = value._asdict()
    if isinstance(value, list | tuple):
        items = {str(i): expected_value(item) for i, item in enumerate(value)}
        return Comparable("sequence", items=items)
    if isinstance(value, dict):
        items = {_key(_expected_key(key)): expected_value(item) for key, item in value.items()}
        return Comparable("mapping", items=items)
    if value is None:
        raise TypeError(
            "the oracle returns None: is its `return` missing? To check that a value is None, end "
            "the cell in `value is None` and return True"
        )
    raise TypeError(f"the oracle returns {type(value).__name__}: not comparable")
