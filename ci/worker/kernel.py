"""The kernel of a lesson: IPython's, with a display hook that makes shown values readable.

The value of a cell goes to the student as text and, in the same message, to the judge as data in
full precision. `python -m ci.worker.kernel -f FILE` starts one.
"""

import os
from collections.abc import Callable
from typing import Any

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type
from traitlets.config import Config

from ci.lesson.value import MIME, encode
from ci.worker.import_path import add_after_standard_library

SETTINGS = Config(
    IPKernelApp={"exec_PYTHONSTARTUP": False},  # only the lesson's code runs in a lesson
    InteractiveShell={"colors": "nocolor"},  # in tracebacks they cost a tenth of a second each
    InlineBackend={
        "figure_formats": {"svg"},  # sharp on paper and on any screen
        "print_figure_kwargs": {"bbox_inches": "tight", "metadata": {"Date": None}},
        "rc": {"svg.hashsalt": "pytorch-course"},  # the same figure has the same bytes
    },
)


class DisplayHook(ZMQShellDisplayHook):
    """Shows a cell's value and attaches it as data. `display()` does not pass through it."""

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """IPython's formats of `result`, and its value, which a type cannot supply itself."""
        data, metadata = super().compute_format_data(result)
        return {**data, MIME: encode(result)}, metadata


class Shell(ZMQInteractiveShell):
    """IPython's shell with this display hook."""

    displayhook_class = Type(DisplayHook)


class Kernel(IPythonKernel):
    """IPython's kernel with this shell."""

    shell_class = Type(Shell)


def start(on_ready: Callable[[], None] = lambda: None) -> None:
    """Run a kernel with the arguments of the command line; `on_ready` is called before a lesson."""
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
