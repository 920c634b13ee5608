"""The text of a shown value, made from its encoding.

What a student reads and what the judge compares are therefore one value: neither a class's own
`__repr__`, nor a formatter, nor a print option can show another one.
"""

import builtins
import importlib.util
import io
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from IPython.lib import pretty

from ci.lesson.value import encode

# By which texts are made, and which the lesson can replace:
FUNCTIONS = {
    name: getattr(builtins, name)
    for name in ("repr", "str", "format", "float", "int", "len", "isinstance", "type", "tuple")
}
PRINTERS = {  # before the lesson adds its own
    "singleton_pprinters": {},
    "type_pprinters": dict(pretty._type_pprinters),
    "deferred_pprinters": dict(pretty._deferred_type_pprinters),
}
NUMPY = np.get_printoptions()  # before the lesson changes them
array_repr = np.array_repr
EXPONENT = re.compile(r"[\d.]e[+-]?\d")
CONTAINERS: dict[str, Callable[[Any], Any]] = {
    **{"list": list, "tuple": tuple},
    **{"dict": dict, "OrderedDict": OrderedDict},
    # A Counter would sort its values, and a text in the place of an array has no order.
    "Counter": lambda pairs: pretty.CallExpression("Counter", *([dict(pairs)] if pairs else [])),
}


def encode_with_text(value: Any) -> tuple[dict[str, Any], str]:
    """The encoding of `value` and its text; no text if the encoding is unreadable."""
    for name, function in FUNCTIONS.items():
        if getattr(builtins, name, None) is not function:
            return {"kind": "unreadable", "why": f"the lesson has replaced {name}()"}, ""
    encoded = encode(value, _leaf_text)
    if encoded["kind"] == "unreadable":
        return encoded, ""
    return encoded, _text(_restore(encoded))


def _text(value: Any) -> str:
    """The text that IPython shows for a value by default."""
    stream = io.StringIO()
    printer = pretty.RepresentationPrinter(stream, **PRINTERS)
    printer.pretty(value)
    printer.flush()
    return stream.getvalue()


class _Text:
    """An object with this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _restore(encoded: Mapping[str, Any]) -> Any:
    """An object with the text of the encoded one."""
    value, kind = encoded.get("value"), encoded.get("type", "")
    match encoded["kind"]:
        case "float":
            return float(str(value))
        case "array":
            return _Text(encoded["text"])
        case "sequence":
            items = [_restore(item) for item in encoded["items"]]
            if kind in CONTAINERS:
                return CONTAINERS[kind](items)
            return _Text(_named_items(kind, items, encoded.get("names")))
        case "mapping":
            return CONTAINERS[kind]([(_restore(k), _restore(v)) for k, v in encoded["items"]])
    match kind:
        case "type":
            return _Text(str(value).removeprefix("builtins."))
        case "dtype":
            return _Text(str(value))
        case "device":
            name, _, index = str(value).partition(":")
            return _Text(f"device(type={name!r}{f', index={index}' if index else ''})")
    return value


def _named_items(kind: str, items: list[Any], names: list[str] | None) -> str:
    if names is None:
        return f"{kind}({items})"
    parts = [f"{name}={item!r}" for name, item in zip(names, items, strict=True)]
    if kind.startswith("torch."):
        return f"{kind}(\n" + ",\n".join(parts) + ")"
    return f"{kind}({', '.join(parts)})"


def _leaf_text(value: Any, stored: np.ndarray) -> str:
    """The text of an array or tensor, with the digits of `stored`."""
    if isinstance(value, np.ndarray | np.generic):
        return _numpy_text(value, stored.astype(value.dtype, copy=False))
    return _torch_text(value, stored)


def _numpy_text(value: Any, stored: np.ndarray) -> str:
    options = np.get_printoptions()
    precision = options["precision"]
    if stored.dtype.kind in "fc" and precision is not None and precision < NUMPY["precision"]:
        raise ValueError(_hidden("NumPy", f"precision={precision}", NUMPY["precision"]))
    chosen: dict[str, Any] = {**NUMPY, "edgeitems": max(1, options["edgeitems"])}
    for name in ("precision", "threshold", "linewidth"):
        chosen[name] = options[name]
    with np.printoptions(**chosen):
        text = array_repr(stored) if isinstance(value, np.ndarray) else repr(stored[()])
    if not options["suppress"]:
        return text
    if EXPONENT.search(text):
        raise ValueError(_hidden("NumPy", "suppress=True", "False"))
    return text


def _torch_text(value: Any, stored: np.ndarray) -> str:
    import torch

    printer = _torch_printer()
    options = torch._tensor_str.PRINT_OPTS
    if value.is_floating_point() or value.is_complex():
        if options.precision < 4:
            raise ValueError(_hidden("torch", f"precision={options.precision}", 4))
        printer.PRINT_OPTS.precision = options.precision
    printer.PRINT_OPTS.threshold = options.threshold
    printer.PRINT_OPTS.edgeitems = max(1, options.edgeitems)
    printer.PRINT_OPTS.linewidth = options.linewidth
    printer.PRINT_OPTS.sci_mode = options.sci_mode or None
    with torch.no_grad():
        copy = torch.from_numpy(stored).to(value.dtype)
        contents = printer._tensor_str(copy, len("tensor("))
    if options.sci_mode is False and EXPONENT.search(contents):
        raise ValueError(_hidden("torch", "sci_mode=False", "None"))
    text = str(printer._str(value, tensor_contents=contents))
    return f"Parameter containing:\n{text}" if type(value) is torch.nn.Parameter else text


@cache
def _torch_printer() -> ModuleType:
    """A second copy of torch's module that prints tensors, which the lesson does not know."""
    import torch

    path = str(torch._tensor_str.__file__)
    spec = importlib.util.spec_from_file_location("_tensor_str_of_the_kernel", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its module
    spec.loader.exec_module(module)
    return module


def _hidden(library: str, option: str, default: object) -> str:
    return f"{library}'s print option {option} hides digits of it: the default is {default}"
