"""The fork server of a lesson's ranks, in a forked kernel.

multiprocessing's "forkserver" starts a Python that imports torch, which takes seconds per kernel. A
forked kernel instead keeps a fork of itself, made while it had one thread, with torch imported. As
the interpreter of its processes (`multiprocessing.set_executable`) it names `rank_server`, a small
program that hands what it is asked to do over to a fork of this fork, with everything that it has
inherited. The real interpreter does it if the lesson has changed the environment by then.
"""

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ci.worker import processes

PROGRAM = Path(__file__).with_name("rank_server")
PYTHON = "python"  # its name where it stands in for one
LARGEST = 2**20  # bytes of an order
LONGEST_SHEBANG = 100  # characters; older kernels take 127 with the options
MOST_DESCRIPTORS = 16  # that a fork server inherits: its streams, a listener and a pipe


def stand_by(reseed: Callable[[], None]) -> Callable[[], None]:
    """Fork a process that waits and forks the servers; `reseed` gives each its random numbers.

    Returns a function to call before the lesson starts: only later changes count as the lesson's.
    What they share is in the temporary folder, which goes with the run.
    """
    if sys.platform != "linux" or not os.access(PROGRAM, os.X_OK):
        return lambda: None
    folder, parent = Path(tempfile.mkdtemp(prefix="ranks-")), os.getpid()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen()
    if not os.fork():
        try:
            processes.end_with(parent)
            _wait(listener, folder, reseed)
        finally:
            os._exit(0)
    listener.close()
    return lambda: _offer(folder)


def _offer(folder: Path) -> None:
    """Have multiprocessing start the program, which finds beside itself what it has to know."""
    (folder / "interpreter").symlink_to(sys.executable)
    (folder / "before.json").write_text(json.dumps(dict(os.environ)))
    _write_program(folder)
    multiprocessing.set_executable(str(folder / PYTHON))


def _write_program(folder: Path) -> None:
    """Write the program, to be run by this interpreter: `env python3` may find another one.

    Where files in `folder` cannot be executed, as in the lab, a link to the program has to do.
    """
    program = folder / PYTHON
    program.write_text(f"#!{sys.executable} -IS\n{PROGRAM.read_text()}")
    fits = len(sys.executable) <= LONGEST_SHEBANG and " " not in sys.executable
    program.chmod(0o755 if fits else 0o644)
    if not os.access(program, os.X_OK):
        program.unlink()
        program.symlink_to(PROGRAM)


def _wait(listener: socket.socket, folder: Path, reseed: Callable[[], None]) -> None:
    """In the fork: fork a server whenever the program asks for one, as also torchrun does."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getpid()
    while True:
        program, _ = listener.accept()
        if not os.fork():
            processes.end_with(parent)
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            reseed()
            multiprocessing.set_executable(str(folder / PYTHON))
            _serve(program)
            return
        program.close()


def _serve(program: socket.socket) -> None:
    """Do in place of the program what it was started for."""
    order, descriptors, _, _ = socket.recv_fds(program, LARGEST, MOST_DESCRIPTORS)
    code, numbers, environment, folder = json.loads(order)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (threads := environment.get("OMP_NUM_THREADS", "")).isdecimal():
        import torch

        torch.set_num_threads(int(threads))  # OpenMP has read the variable before
    connection = _renumber([*descriptors, program.detach()], numbers)
    os.write(connection, b"taken over")  # the program ends when the connection does
    exec(code, {"__name__": "__main__"})


def _renumber(descriptors: Sequence[int], numbers: Sequence[int]) -> int:
    """Give all but the last of the descriptors these numbers; the new number of the last."""
    above = max(numbers) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(moved, numbers, strict=False):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return moved[-1]
