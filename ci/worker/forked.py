"""Warm kernels: forked from a process that has imported what lessons import.

A warm kernel is like a cold one but sooner there. Where a fork could differ, the kernel is cold: on
another system than Linux, with other variables or another folder than its parent had when it
imported, and where the parent did not come up.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from ci.worker.fork_server import READY

PRELOAD_S = 45.0  # for the parent to come up: a cold kernel takes seconds
ANSWER_S = 20.0  # for a fork
GONE_S = 2.0  # for a killed kernel to be told of: a lesson may have stopped its parent
LOOK_S = 0.005  # between two looks at a kernel that comes, or goes
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# What a kernel has for itself, of its run: nothing that the parent imports has read it.
LATE = {"CUDA_VISIBLE_DEVICES", "IPYTHONDIR", "TMPDIR"}


class Forked:
    """A kernel that was forked: as much of `subprocess.Popen` as a provisioner needs."""

    stdin = stdout = stderr = None  # which it would close

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.lost = False  # whether it ended with its parent, so that nobody knows how
        self._status = status
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus a signal's number; None while it runs."""
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            told = os.read(self._status, 64)
            self.lost = not told
            self._code = int(told) if told else -signal.SIGKILL
            os.close(self._status)
        return self._code

    def wait(self) -> int | None:
        """The same, once it has ended."""
        if self._code is None:
            select.select([self._status], [], [])
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The parent of one worker's warm kernels. Not started where kernels are to be cold."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._folder = Path()
        self._hopeless = sys.platform != "linux"

    @property
    def pids(self) -> set[int]:
        """The parent's process id, where there is a parent."""
        return {self._process.pid} if self._process else set()

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Have a parent that has imported everything; a new one where the last one died.

        To be called in the thread that lives as long as its process does: with it, the parent
        ends. Where a parent does not come up, there is none from now on.
        """
        if self._hopeless or (self._process and self._process.poll() is None):
            return
        self.end()
        self._environment, self._folder = dict(environment), folder
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ci.worker.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                cwd=folder,
                pass_fds=[theirs.fileno()],
            )
        self._socket.settimeout(PRELOAD_S)
        with contextlib.suppress(OSError):
            if self._socket.recv(len(READY)):
                return
        self._hopeless = True
        self.end()

    def end(self) -> None:
        """End the parent, and with it its kernel."""
        if self._process and self._socket:
            self._process.kill()
            self._process.wait()
            self._socket.close()
        self._process = self._socket = None

    def fork(
        self, arguments: list[str], environment: Mapping[str, str], folder: Path
    ) -> Forked | None:
        """A kernel with these arguments; None where it is to be cold.

        Raises RuntimeError where the parent dies, or does not answer.
        """
        if not self._socket or not self._fits(environment, folder):
            return None
        late = {name: environment[name] for name in LATE if name in environment}
        request = json.dumps({"arguments": arguments, "environment": late}).encode()
        status, theirs = os.pipe()
        with contextlib.suppress(OSError):  # where it is gone, there is no answer either
            socket.send_fds(self._socket, [request], [1, 2, theirs])
        os.close(theirs)
        answered = select.select([status], [], [], ANSWER_S)[0]
        pid = _line(status) if answered else ""
        if not pid:
            os.close(status)
            self.end()
            raise RuntimeError("the parent of warm kernels is gone, or hangs")
        return Forked(int(pid), status)

    def _fits(self, environment: Mapping[str, str], folder: Path) -> bool:
        """Whether the parent imported where, and with what, a cold kernel would import."""
        names = environment.keys() | self._environment.keys()
        differ = {n for n in names if environment.get(n) != self._environment.get(n)}
        return folder == self._folder and differ <= LATE & environment.keys()


def _line(descriptor: int) -> str:
    """One line, and nothing of the next one."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line.decode()


class WarmProvisioner(LocalProvisioner):
    """Provides a kernel from a nursery; where that has none to give, as Jupyter does."""

    def __init__(self, nursery: Nursery, **options: Any) -> None:
        super().__init__(**options)
        self._nursery = nursery

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        """Start a kernel, warm where it can be."""
        arguments = cmd[cmd.index("-f") :]
        kernel = self._nursery.fork(arguments, options["env"], Path(options["cwd"]))
        if not kernel:
            return await super().launch_kernel(cmd, **options)
        self.process: Any = kernel
        self.pid = self.pgid = kernel.pid  # it leads a session of its own
        self.cwd = options["cwd"]
        return self.connection_info

    async def post_launch(self, **options: Any) -> None:
        """Wait for its sockets: a client that connects too soon tries again after 0.1 s."""
        await super().post_launch(**options)
        facts: Mapping[str, Any] = self.connection_info
        sockets = [Path(f"{facts['ip']}-{facts[f'{name}_port']}") for name in CHANNELS]
        deadline = time.monotonic() + ANSWER_S
        while not all(map(Path.exists, sockets)) and await self.poll() is None:
            if time.monotonic() > deadline:  # the client will say so
                return
            await asyncio.sleep(LOOK_S)

    async def kill(self, restart: bool = False) -> None:
        """End it; it is gone when this returns, or Jupyter would look again after 0.1 s."""
        await super().kill(restart)
        deadline = time.monotonic() + GONE_S
        while await self.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
