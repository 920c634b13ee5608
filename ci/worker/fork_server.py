"""The fork server: it has imported what lessons import, and forks a kernel for each request.

`python -P -m ci.worker.fork_server DESCRIPTOR` is started by `ci.worker.forked`, which holds the
other end of the socket. It serves one kernel at a time, and ends with the process that started it.

A fork has only the thread that forked it, and cannot use CUDA if its parent has initialised it.
Therefore this process has one thread and never touches CUDA, or it ends before it forks; after its
imports it only forks and waits.
"""

import ctypes
import gc
import importlib
import io
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ci.worker import figures, ranks

# Imported by a kernel at its start; the debugger takes half of the time:
KERNEL_MODULES = ("ci.worker.kernel", "ipykernel.debugger")
LESSON_MODULES = (
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
READY = b"ready"
LARGEST = 2**16  # bytes of a request
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


def main(requests: socket.socket) -> None:
    """Import, then fork at each request. Returns in the forks only, once their kernel has ended."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _preload(KERNEL_MODULES)
    environment = dict(os.environ)  # before torch changes it
    _preload(LESSON_MODULES)
    figures.prepare()
    _rehearse()
    _become_forkable()
    _prctl(PR_SET_DUMPABLE, 0)  # deny access to the lessons, which run as the same user
    requests.send(READY)
    request = _serve(requests)  # from here on in the fork
    _set_up_kernel({**environment, **request["environment"]})
    from ci.worker import kernel

    sys.argv = [kernel.__file__, *request["arguments"]]
    kernel.start(ranks.stand_by(_reseed))


def _preload(modules: Sequence[str]) -> None:
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
        raise RuntimeError(f"it warns: {warned[0]}")


def _rehearse() -> None:
    """Do once what costs each kernel tenths of a second at its first figure and first error.

    This looks up fonts, builds the grammar of formulas, and parses the sources of tracebacks.
    """
    from matplotlib.figure import Figure
    from matplotlib.mathtext import MathTextParser
    from stack_data.core import Source

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
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"{threads} threads: a fork would lose all but one")
    devices = [path for path in Path("/proc/self/fd").iterdir() if _is_gpu(path)]
    if devices or torch.cuda.is_initialized():
        raise RuntimeError("CUDA was initialised: a fork could not use it")


def _is_gpu(descriptor: Path) -> bool:
    with suppress(OSError):
        return str(descriptor.readlink()).startswith("/dev/nvidia")
    return False


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork a kernel at each request, and report its process id, then its exit status.

    Returns in the forks only, with the request.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 3)
        if not message:  # the worker is gone
            os._exit(0)
        out, err, status = descriptors
        kernel = os.fork()
        if not kernel:
            requests.close()
            os.dup2(out, 1), os.dup2(err, 2)
            for descriptor in descriptors:
                os.close(descriptor)
            return dict(json.loads(message))
        os.close(out)
        os.close(err)
        with suppress(BrokenPipeError), open(status, "w", buffering=1) as report:  # noqa: PTH123
            print(kernel, file=report)
            print(os.waitstatus_to_exitcode(os.waitpid(kernel, 0)[1]), file=report)


def _set_up_kernel(environment: Mapping[str, str]) -> None:
    """In the fork: set up what a fresh process would have from its start."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_DUMPABLE, 1)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    tempfile.tempdir = None  # it is derived from the environment
    _reseed()


def _reseed() -> None:
    """Draw new seeds, or all forks would draw the same numbers. `random` reseeds itself."""
    import numpy as np
    import torch

    np.random.seed()
    torch.default_generator.seed()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    try:
        main(socket.socket(fileno=int(sys.argv[1])))
    except Exception:
        traceback.print_exc()
        os._exit(1)  # unexpected threads would keep it alive
