"""The client of the fork server, and Jupyter's provisioner for kernels that it forks.

A forked kernel behaves like a fresh one and is ready sooner. The kernel is fresh where a fork could
differ: on systems other than Linux, if its variables or folder are not those that the server had
when it imported, and if the server did not start.
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

PRELOAD_S = 45.0  # for the server to import everything; a fresh kernel takes seconds
ANSWER_S = 20.0  # for a fork
EXIT_S = 2.0  # how long to wait for a killed kernel's exit status
POLL_S = 0.005  # while a kernel starts or ends
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# Variables of the run, which nothing that the server imports has read:
LATE = {"CUDA_VISIBLE_DEVICES", "IPYTHONDIR", "TMPDIR"}


class ForkedProcess:
    """A forked kernel, with the part of `subprocess.Popen` that a provisioner needs."""

    stdin = stdout = stderr = None  # the provisioner closes them

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.lost = False  # whether the server died with it, so that its exit status is unknown
        self._status = status
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or minus the number of its signal; None while it runs."""
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            answer = os.read(self._status, 64)
            self.lost = not answer
            self._code = int(answer) if answer else -signal.SIGKILL
            os.close(self._status)
        return self._code

    def wait(self) -> int | None:
        """Wait until it has ended; its exit status."""
        if self._code is None:
            select.select([self._status], [], [])
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process from which one worker's kernels are forked. Until `start`, kernels are fresh."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._folder = Path()
        self._disabled = sys.platform != "linux"

    @property
    def pids(self) -> set[int]:
        """Its process id, if it runs."""
        return {self._process.pid} if self._process else set()

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the server, unless it runs, and wait until it has imported everything.

        Call it in a thread that lives as long as the process: the server ends with its thread. If
        it does not start, kernels are fresh from then on.
        """
        if self._disabled or (self._process and self._process.poll() is None):
            return
        self.end()
        self._environment, self._folder = dict(environment), folder
        self._socket, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ci.worker.fork_server", str(server_end.fileno())],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                cwd=folder,
                pass_fds=[server_end.fileno()],
            )
        self._socket.settimeout(PRELOAD_S)
        with contextlib.suppress(OSError):
            if self._socket.recv(len(READY)):
                return
        self._disabled = True
        self.end()

    def end(self) -> None:
        """End the server and its kernel."""
        if self._process and self._socket:
            self._process.kill()
            self._process.wait()
            self._socket.close()
        self._process = self._socket = None

    def fork(
        self, arguments: list[str], environment: Mapping[str, str], folder: Path
    ) -> ForkedProcess | None:
        """A kernel with these arguments; None where it has to be a fresh one.

        Raises RuntimeError where the server dies or does not answer.
        """
        if not self._socket or not self._matches(environment, folder):
            return None
        late = {name: environment[name] for name in LATE if name in environment}
        request = json.dumps({"arguments": arguments, "environment": late}).encode()
        status, server_end = os.pipe()
        with contextlib.suppress(OSError):  # a server that is gone does not answer
            socket.send_fds(self._socket, [request], [1, 2, server_end])
        os.close(server_end)
        answered = select.select([status], [], [], ANSWER_S)[0]
        pid = _read_line(status) if answered else ""
        if not pid:
            os.close(status)
            self.end()
            raise RuntimeError("the fork server is gone, or hangs")
        return ForkedProcess(int(pid), status)

    def _matches(self, environment: Mapping[str, str], folder: Path) -> bool:
        """Whether the server imported in the folder and with the variables of a fresh kernel."""
        names = environment.keys() | self._environment.keys()
        differ = {n for n in names if environment.get(n) != self._environment.get(n)}
        return folder == self._folder and differ <= LATE & environment.keys()


def _read_line(descriptor: int) -> str:
    """One line, without reading into the next one."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line.decode()


class ForkingProvisioner(LocalProvisioner):
    """Provides a forked kernel, or a fresh one as Jupyter does."""

    def __init__(self, fork_server: ForkServer, **options: Any) -> None:
        super().__init__(**options)
        self._fork_server = fork_server

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        """Start a kernel, forked if possible."""
        arguments = cmd[cmd.index("-f") :]
        kernel = self._fork_server.fork(arguments, options["env"], Path(options["cwd"]))
        if not kernel:
            return await super().launch_kernel(cmd, **options)
        self.process: Any = kernel
        self.pid = self.pgid = kernel.pid  # it leads a session of its own
        self.cwd = options["cwd"]
        return self.connection_info

    async def post_launch(self, **options: Any) -> None:
        """Wait for the kernel's sockets: a client that connects too soon retries after 0.1 s."""
        await super().post_launch(**options)
        info: Mapping[str, Any] = self.connection_info
        sockets = [Path(f"{info['ip']}-{info[f'{name}_port']}") for name in CHANNELS]
        deadline = time.monotonic() + ANSWER_S
        while not all(map(Path.exists, sockets)) and await self.poll() is None:
            if time.monotonic() > deadline:  # the client reports it
                return
            await asyncio.sleep(POLL_S)

    async def kill(self, restart: bool = False) -> None:
        """Kill the kernel and wait for its end, which Jupyter would notice only after 0.1 s."""
        await super().kill(restart)
        deadline = time.monotonic() + EXIT_S
        while await self.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
