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

MARK = "PYTORCH_COURSE_WORKER"  # environment variable of a worker and everything that it starts
CLOSE_S = 10.0  # for a worker to end after its input was closed


class LocalExecutor:
    """This machine, with the packages of this interpreter. An `Executor`."""

    provenance: Mapping[str, str] = {}
    shared = True

    def __init__(self) -> None:
        needed = ("torch", "papermill", "ipykernel")
        if missing := [name for name in needed if not find_spec(name)]:
            raise MachineError(
                f"{missing[0]} is not installed here: pip install -e '.[here]', or use --on lab"
            )

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> "Process":
        """Start a worker process, which inherits the environment and the locks of its GPUs."""
        return Process("ci.worker.server", variables, lease.descriptors)

    def facts(self) -> Mapping[str, object]:
        """Interpreter, C library, packages, and the variables that libraries read."""
        libc = ""
        with contextlib.suppress(ValueError, AttributeError, OSError):
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        return {
            "executor": "local",
            "python": sys.version,
            "libc": libc,
            "packages": keys.packages(tuple(sys.path)),
            "variables": keys.settings(os.environ),
        }

    def lesson(self, path: Path) -> str:
        """The same path: the worker sees the same files."""
        return str(path)

    def reclaim(self, path: Path) -> None:
        """Nothing to do: the worker runs as the current user."""


class Process:
    """A module of the pipeline that runs in a process of its own. A `WorkerChannel`."""

    def __init__(
        self, module: str, variables: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=inherited,
            start_new_session=True,  # so that Ctrl-C reaches only this process
            env={**os.environ, **variables, MARK: self._mark},
        )
        self._abandoned = False

    def attempt(self, path: Path) -> str:
        """The same path: the worker sees the same files."""
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
        """The bytes that its descendants use, as far as readable; shared pages count once."""
        used = 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    memory = process.memory_full_info()
                    used += getattr(memory, "pss", memory.uss)
        return used

    def ending(self) -> str:
        """Its signal or exit status; `hangs` while it runs."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "hangs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"

    def abandon(self) -> None:
        """Do not kill it in `close`: it waits for a process that cannot be killed."""
        self._abandoned = True

    def close(self) -> None:
        """Close its input, wait for it, and kill what it has left."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self._abandoned:
            return
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is stuck in a driver
                self._process.wait(CLOSE_S)
        self._kill_marked()

    def _kill_marked(self) -> None:
        """Kill what a worker that was killed could not kill itself."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    process.kill()
