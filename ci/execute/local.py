"""Fork servers as processes of this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from importlib.util import find_spec
from pathlib import Path

import psutil

from ci.errors import MachineError
from ci.execute.leases import Lease
from ci.plan import keys
from ci.plan.planner import Run

MARK = "PYTORCH_COURSE_WORKER"  # environment variable of a process and everything that it starts
CLOSE_S = 30.0  # for a process to end after its input was closed
SOON_S = 1.0  # after which it gets a signal: while it imports, it does not read


class LocalExecutor:
    """This machine, with the packages of this interpreter. An `Executor`."""

    provenance: Mapping[str, str] = {}
    shared = True
    is_scheduled = False

    def __init__(self) -> None:
        needed = ("torch", "papermill", "ipykernel")
        if missing := [name for name in needed if not find_spec(name)]:
            raise MachineError(
                f"{missing[0]} is not installed here: pip install -e '.[here]', or use --on lab"
            )

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> "Process":
        """Start a fork server, which inherits the environment."""
        return Process("ci.worker.server", variables)

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
        """The same path: it sees the same files."""
        return str(path.absolute())

    def reclaim(self, path: Path) -> None:
        """Nothing to do: runs are the current user's."""


class Process:
    """A module of the pipeline that runs in a process of its own. A `ServerChannel`."""

    inherits = True

    def __init__(
        self,
        module: str,
        variables: Mapping[str, str],
        *arguments: str,
        before: Sequence[str] = (),
        without: Set[str] = frozenset(),
    ) -> None:
        """`before` is a command that starts it and keeps its own errors, if it is not empty.

        The process inherits the environment, except for the variables `without`.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in without}
        self._mark = uuid.uuid4().hex
        self._input, its_input = socket.socketpair()
        with its_input:
            self._process = subprocess.Popen(
                [*before, sys.executable, "-P", "-m", module, *arguments],
                stdin=its_input.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if before else None,
                text=True,
                start_new_session=True,  # so that Ctrl-C reaches only this process
                env={**inherited, **variables, MARK: self._mark},
            )

    @property
    def may_serve_again(self) -> bool:
        """True: its time has no limit."""
        return True

    @property
    def wait_reason(self) -> str:
        """Empty: it starts at once."""
        return ""

    def attempt(self, path: Path) -> str:
        """The same path: it sees the same files."""
        return str(path.absolute())

    def send(self, line: str, descriptors: Sequence[int] = ()) -> None:
        """Write to its standard input; it inherits the open files."""
        text = line.encode()
        sent = socket.send_fds(self._input, [text], descriptors)
        self._input.sendall(text[sent:])

    def lines(self) -> Iterator[str]:
        """What it writes to its standard output."""
        assert self._process.stdout
        with self._process.stdout as lines:
            yield from lines

    def memory(self, pid: int) -> int:
        """The bytes that a run process's descendants use, as far as readable."""
        used = 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(pid).children(recursive=True):
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

    def close(self) -> None:
        """Close its input, wait for it, and kill what it has left if it could not do so itself."""
        self._input.close()
        for end, seconds in ((signal.SIGTERM, SOON_S), (signal.SIGKILL, CLOSE_S)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self._process.send_signal(end)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is stuck in a driver
            if self._process.wait(CLOSE_S) >= 0:
                return
        self._kill_marked()

    def _kill_marked(self) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    process.kill()
