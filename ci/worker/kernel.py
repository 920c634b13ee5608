"""The kernel a lesson runs in: IPython's own, with a display hook that makes shown values readable.

What a cell shows as its value goes to the student as text, and beside it, in the same message, as
the value itself in full precision. `python -m ci.worker.kernel -f FILE` starts one.
"""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type
from traitlets.config import Config

from ci.lesson.value import MIME
from ci.worker.import_path import add_after_standard_library

LARGEST = 2**20  # bytes of an encoded value; a check wants a number that a student can look at

SETTINGS = Config(
    IPKernelApp={"exec_PYTHONSTARTUP": False},  # what runs in a lesson stands in the lesson
    InteractiveShell={"colors": "nocolor"},  # of tracebacks: a tenth of a second each, and no paper
    InlineBackend={
        "figure_formats": {"svg"},  # sharp on paper and on any screen
        "print_figure_kwargs": {"bbox_inches": "tight", "metadata": {"Date": None}},
        "rc": {"svg.hashsalt": "pytorch-course"},  # the same figure has the same bytes
    },
)


def encode(value: Any) -> dict[str, Any]:
    """`value` as plain JSON: its kind, and all that is needed to compare it bit by bit.

    It never raises: what can't be read is `{"kind": "unreadable", "why": …}`.
    """
    try:
        encoded = _encode(value)
        size = len(json.dumps(encoded))
    except Exception as error:  # a shown value may be anything, and a display hook must not raise
        return {"kind": "unreadable", "why": f"{type(value).__name__}: {error}"}
    if size > LARGEST:
        return {"kind": "unreadable", "why": f"{size} bytes, more than {LARGEST}"}
    return encoded


def _encode(value: Any) -> dict[str, Any]:
    # Exact types: a subclass may show the student something else than what it holds.
    if value is None or type(value) in (bool, int, str):
        return {"kind": "plain", "value": value}
    if type(value) is float:
        return {"kind": "float", "value": repr(value)}  # strict JSON has no NaN
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return _array(np.asarray(value), str(value.dtype), None)
    if isinstance(value, list | tuple):
        return {"kind": "sequence", "items": [_encode(item) for item in value]}
    if isinstance(value, dict):
        # Pairs, since a notebook file sorts the keys of what it holds.
        if len({str(key) for key in value}) < len(value):
            raise TypeError("keys that read the same")
        return {"kind": "mapping", "items": [[str(k), _encode(v)] for k, v in value.items()]}
    if isinstance(value, type):
        return {"kind": "plain", "value": f"{value.__module__}.{value.__qualname__}"}
    return _encode_torch(value)


def _encode_torch(value: Any) -> dict[str, Any]:
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        dtype = str(value.dtype).removeprefix("torch.")
        if (
            tensor.dtype == torch.bfloat16
        ):  # NumPy has no such type; float32 holds each of its values
            tensor = tensor.float()
        return _array(tensor.numpy(), dtype, str(value.device))
    if isinstance(value, torch.dtype | torch.device):
        return {"kind": "plain", "value": str(value)}
    raise TypeError("no kind of value that a check can read")


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


class DisplayHook(ZMQShellDisplayHook):
    """Shows a cell's value, and attaches what was shown. `display()` does not pass here."""

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """IPython's formats of `result`, and its value; a type's own claim to one is dropped."""
        data, metadata = super().compute_format_data(result)
        return {**data, MIME: encode(result)}, metadata


class Shell(ZMQInteractiveShell):
    """IPython's shell with our display hook."""

    displayhook_class = Type(DisplayHook)


class Kernel(IPythonKernel):
    """IPython's kernel with our shell."""

    shell_class = Type(Shell)


def start(on_ready: Callable[[], None] = lambda: None) -> None:
    """Be a kernel, as the command line says; call `on_ready` before there is a lesson."""
    # Python was started with -P, which keeps the lesson's neighbours away from our own imports. The
    # lesson may use them: as in Jupyter, they come after the standard library.
    add_after_standard_library("")
    parent = os.getppid()  # with which it ends
    app = IPKernelApp.instance(kernel_class=Kernel, config=SETTINGS, parent_handle=parent)
    app.initialize()
    on_ready()
    app.start()


if __name__ == "__main__":
    # Started as __main__: the classes above are then `__main__.Kernel`, so take the importable one.
    from ci.worker.kernel import start as start_importable

    start_importable()
