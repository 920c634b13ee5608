"""Workers as processes of this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil

from ci.errors import MachineError
from ci.execute.leases import Lease
from ci.plan import keys
from ci.plan.planner import Run

MARK = "PYTORCH_COURSE_WORKER"  # in the environment of all that a worker starts


class Here:
    """This machine, with the packages of this interpreter. A `Place`."""

    facts: Mapping[str, str] = {}
    shared = True

    def __init__(self) -> None:
        if lacking := [name for name in ("torch", "papermill", "ipykernel") if not find_spec(name)]:
            raise MachineError(
                f"{lacking[0]} is not installed here: pip install -e '.[here]', or say --on lab"
            )

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, settings: Mapping[str, str]
    ) -> "Process":
        """Start a worker process; it inherits our environment, and the locks of its GPUs."""
        return Process("ci.worker.server", settings, lease.descriptors)

    def identity(self) -> str:
        """Interpreter, packages and settings of this machine."""
        return keys.here()

    def lesson(self, path: Path) -> str:
        """The same path: the worker sees the same files."""
        return str(path)

    def reclaim(self, path: Path) -> None:
        """It was ours all the time."""


class Process:
    """A module that runs in a process of its own, a worker. A `WorkerChannel`."""

    def __init__(
        self, module: str, settings: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C is ours to answer
            env={**os.environ, **settings, MARK: self._mark},
        )

    def attempt(self, path: Path) -> str:
        """The same path: the worker is the same user."""
        return str(path)

    def send(self, line: str) -> None:
        """Write to its standard input."""
        assert self._process.stdin
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def lines(self) -> Iterator[str]:
        """What it writes to its standard output."""
        assert self._process.stdout
        with self._process.stdout as lines:
            yield from lines

    def memory(self) -> int:
        """The bytes of all below it, as far as we may look; what several share counts once."""
        found = 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    memory = process.memory_full_info()
                    found += getattr(memory, "pss", memory.uss)
        return found

    def ending(self) -> str:
        """Its signal or exit status; `hangs` where it has none."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "hangs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"was gone, exit status {code}"

    def close(self) -> None:
        """End its input, wait for it, and end what it left."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._end_marked()

    def _end_marked(self) -> None:
        """End what a killed worker left: it could not, and its subreaper's duty died with it."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    process.kill()
