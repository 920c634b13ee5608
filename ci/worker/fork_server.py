"""The parent of warm kernels: it has imported what lessons import, and forks a kernel per request.

`python -P -m ci.worker.fork_server DESCRIPTOR`, started by `ci.worker.forked`, which holds the
other end of the socket. It serves one kernel at a time, and ends with the process that started it.

A fork has the one thread that forked it, and no use of a GPU that its parent had opened. So this
process has one thread and has not touched CUDA, or it ends before it forks anything; and from then
on it forks and waits, and does nothing else.
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

from ci.worker import ranks

# What a kernel imports as it comes up, half of which is the debugger:
OF_KERNELS = ("ci.worker.kernel", "ipykernel.debugger")
OF_LESSONS = (
    "torch",
    "torch._dynamo",  # which the first optimizer imports, and takes as long as torch
    "torch.distributed",
    # Not matplotlib_inline.backend_inline: outside IPython it turns figures off, without a word.
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    # What a kernel imports at its first cell, figure and traceback:
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
# What a call of `backward()`, and of a layer, goes through when it raises:
TRACED = ("torch._tensor", "torch.autograd", "torch.autograd.graph", "torch.nn.modules.module")
READY = b"ready"
LARGEST = 2**16  # bytes of a request
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


def main(requests: socket.socket) -> None:
    """Import, and fork at each request. In each fork: be the kernel that was asked for."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _preload(OF_KERNELS)
    environment = dict(os.environ)  # as it was before torch wrote into it
    _preload(OF_LESSONS)
    _rehearse()
    _become_forkable()
    _prctl(PR_SET_DUMPABLE, 0)  # closed to the lessons, which have the same user
    requests.send(READY)
    request = _serve(requests)
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
    """What is to be warned of, it must be in the lesson: RuntimeError if the block has done so.

    Not `catch_warnings`, which would undo the filters that imports make.
    """
    said: list[object] = []
    show, handler = warnings.showwarning, logging.Handler(logging.WARNING)
    warnings.showwarning = lambda message, *_, **__: said.append(message)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        warnings.showwarning = show
    if said:
        raise RuntimeError(f"it warns: {said[0]}")


def _rehearse() -> None:
    """Do what takes each kernel some tenths of a second at its first figure and its first error.

    Fonts are looked up, the grammar of formulas is made, and what tracebacks go through is parsed.
    """
    from matplotlib.figure import Figure
    from matplotlib.mathtext import MathTextParser
    from stack_data.core import Source

    with _silence():
        figure = Figure()
        figure.add_subplot(title="$x^1$").semilogy([1, 100])
        figure.savefig(io.BytesIO(), format="svg", bbox_inches="tight")
    # It keeps fonts, which are open files: forks would share the places where they read.
    MathTextParser._parse_cached.cache_clear()  # type: ignore[attr-defined]
    for name in TRACED:
        if path := importlib.import_module(name).__file__:
            Source.for_filename(path).asttext()


def _become_forkable() -> None:
    """Have one thread and nothing to collect. RuntimeError for threads, and for GPUs in use."""
    import torch

    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)  # OpenBLAS ends its threads at a first fork, until it is used again
    gc.collect()
    gc.freeze()  # what was imported is nobody's garbage: a collection would copy its pages
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
    """Fork a kernel at each request, and tell its process id, then how it ended.

    It returns in the forks only, with the request.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 3)
        if not message:  # who started us is gone
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
        with suppress(BrokenPipeError), open(status, "w", buffering=1) as told:  # noqa: PTH123
            print(kernel, file=told)
            print(os.waitstatus_to_exitcode(os.waitpid(kernel, 0)[1]), file=told)


def _set_up_kernel(environment: Mapping[str, str]) -> None:
    """In the fork: have all that a process of its own would have had from its start."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_DUMPABLE, 1)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    tempfile.tempdir = None  # it goes by the environment
    _reseed()


def _reseed() -> None:
    """Draw new seeds, or all forks would draw the same; Python's `random` does so by itself."""
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
        os._exit(1)  # threads that it should not have would keep it alive
