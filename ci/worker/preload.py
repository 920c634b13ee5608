"""What the fork server imports once, so that no run has to: everything that lessons import.

A fork has only the thread that forked it, and cannot use CUDA if its parent has initialised it.
"""

import gc
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ci.worker import figures

# The debugger takes half of the time in which a kernel starts:
OF_RUNS = ("ci.worker.run_process", "ci.worker.kernel", "ipykernel.debugger")
OF_LESSONS = (
    "torch",
    "torch._dynamo",  # imported by the first optimizer, and as slow as torch itself
    "torch.distributed",
    # Not matplotlib_inline.backend_inline: outside IPython it silently turns figures off.
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    # Imported by a kernel at its first cell, figure and traceback:
    "IPython.core.completer",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.core.pylabtools",
    "pygments.formatters.html",
    "pygments.formatters.terminal256",
    "pygments.lexers.python",
    "sqlite3",
    "stack_data",
)
# In the traceback of a `backward()` or a layer that raises:
IN_TRACEBACKS = (
    "torch._tensor",
    "torch.autograd",
    "torch.autograd.graph",
    "torch.nn.modules.module",
)


def preload() -> dict[str, str]:
    """Import everything; the environment as it was before torch changed it.

    Raises an exception where a fork could differ from a fresh process, for example RuntimeError if
    an import warns or leaves a thread.
    """
    if sys.platform != "linux":
        raise RuntimeError(f"kernels are not forked on {sys.platform}")
    gc.disable()  # in 3.5 s of imports, collections take 0.7 s and find next to nothing
    _import(OF_RUNS)
    environment = dict(os.environ)
    _import(OF_LESSONS)
    figures.prepare()
    _rehearse()
    _become_forkable()
    return environment


def reseed() -> None:
    """Draw new seeds in a fork, or all of them would draw the same numbers.

    `random` reseeds itself.
    """
    import numpy as np
    import torch

    np.random.seed()
    torch.default_generator.seed()


def _import(modules: Sequence[str]) -> None:
    with _silence():
        for name in modules:
            importlib.import_module(name)


@contextmanager
def _silence() -> Iterator[None]:
    """Raise RuntimeError if the block warns: the student has to see the warning in the lesson.

    `catch_warnings` would undo the filters that imports set.
    """
    warned: list[object] = []
    show, handler = warnings.showwarning, logging.Handler(logging.WARNING)
    warnings.showwarning = lambda message, *_, **__: warned.append(message)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        warnings.showwarning = show
    if warned:
        raise RuntimeError(f"an import warns: {warned[0]}")


def _rehearse() -> None:
    """Do once what costs each run tenths of a second when it does it first.

    This compiles the schema of notebooks, looks up fonts, builds the grammar of formulas, and
    parses the sources of tracebacks.
    """
    from matplotlib.figure import Figure
    from matplotlib.mathtext import MathTextParser
    from nbformat.v4 import new_notebook
    from stack_data.core import Source

    new_notebook()

    with _silence():
        figure = Figure()
        figure.add_subplot(title="$x^1$").semilogy([1, 100])
        figure.savefig(io.BytesIO(), format="svg", bbox_inches="tight")
    # It caches fonts, which are open files: forks would share their read positions.
    MathTextParser._parse_cached.cache_clear()  # type: ignore[attr-defined]
    for name in IN_TRACEBACKS:
        if path := importlib.import_module(name).__file__:
            Source.for_filename(path).asttext()


def _become_forkable() -> None:
    """Reduce to one thread. Raises RuntimeError where there are more, or where a GPU is in use."""
    import torch

    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)  # at a fork, OpenBLAS ends its threads until it is used again
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of everything imported
    gc.enable()
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"an import leaves {threads} threads: a fork would lose all but one")
    devices = [path for path in Path("/proc/self/fd").iterdir() if _is_gpu(path)]
    if devices or torch.cuda.is_initialized():
        raise RuntimeError("an import initialises CUDA: a fork could not use it")


def _is_gpu(descriptor: Path) -> bool:
    with suppress(OSError):
        return str(descriptor.readlink()).startswith("/dev/nvidia")
    return False
