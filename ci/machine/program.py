"""Other programs, which may be missing, fail or hang: questions to them, and their output."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterable

from ci.errors import MachineError

TIMEOUT_S = 60.0
KILL_S = 1.0  # for a killed program to end; one that is stuck in a driver never does


class SilentError(MachineError):
    """A program does not answer now, or the one that it has asked does not."""


def ask(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a program and return its exit status and output.

    Raises SilentError if it does not end within TIMEOUT_S, and OSError if it cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that what it has started can be killed, too
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_S)
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        if isinstance(error, subprocess.TimeoutExpired):
            name = os.path.basename(command[0])  # noqa: PTH119 - a word, not a path
            raise SilentError(f"{name} gave no answer in {TIMEOUT_S:g} s") from None
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def answer(*command: str) -> str:
    """Return the output of a program, stripped; empty if it is missing, fails or hangs."""
    try:
        done = ask(*command)
    except (OSError, MachineError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def read_ahead(lines: Iterable[str]) -> "queue.SimpleQueue[str]":
    """Return a queue that gets the lines, and an empty one at their end or when reading fails.

    They are read in a thread, so that the caller need not wait for the next one.
    """
    read = queue.SimpleQueue[str]()

    def put() -> None:
        try:
            with contextlib.suppress(OSError):  # the connection to the program breaks
                for line in lines:
                    read.put(line)
        finally:  # no reader may wait forever after an error
            read.put("")

    threading.Thread(target=put, name="read_ahead", daemon=True).start()
    return read
