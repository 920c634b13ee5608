"""Forked kernels, and Jupyter's provisioner for them.

A forked kernel behaves like a fresh one and is ready sooner.
"""

import asyncio
import json
import multiprocessing.process
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from ci.worker import processes
from ci.worker.preload import reseed

SOCKETS_S = 20.0  # for a kernel to open its sockets
EXIT_S = 2.0  # how long to wait for a killed kernel's exit status
POLL_S = 0.005  # while a kernel starts or ends
LARGEST = 2**20  # bytes of an environment
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class ForkedKernel:
    """A fork of this process that becomes a kernel when it gets its arguments.

    It is made while this process has one thread. It has the part of `subprocess.Popen` that a
    provisioner needs.
    """

    stdin = stdout = stderr = None  # the provisioner closes them

    def __init__(self, hidden: Sequence[int]) -> None:
        """Fork; the descriptors `hidden` are closed in the kernel."""
        self._orders, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._code: int | None = None
        parent = os.getpid()
        if not (pid := os.fork()):
            try:
                self._orders.close()
                for descriptor in hidden:
                    os.close(descriptor)
                _become_kernel(orders, parent)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        self.pid = pid
        orders.close()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the kernel with the arguments of its command line."""
        with self._orders, suppress(OSError):  # of a kernel that was killed
            self._orders.send(json.dumps([arguments, dict(environment)]).encode())

    def poll(self) -> int | None:
        """Its exit status, or minus the number of its signal; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait until it has ended; its exit status."""
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # killed and waited for elsewhere
                self._code = -signal.SIGKILL
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def _become_kernel(orders: socket.socket, parent: int) -> None:
    """In the fork: set up what a fresh process would have from its start, and run a kernel."""
    from ci.worker import kernel, ranks

    os.setsid()
    processes.end_with(parent)
    processes.be_readable()
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    order = orders.recv(LARGEST)
    orders.close()
    if not order:  # the run has ended before
        return
    arguments, environment = json.loads(order)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(parent))
    tempfile.tempdir = None  # it is derived from the environment
    multiprocessing.process.ORIGINAL_DIR = str(Path.cwd())  # type: ignore[attr-defined]
    reseed()
    sys.argv = [kernel.__file__, *arguments]
    kernel.start(ranks.stand_by(reseed))


class ForkingProvisioner(LocalProvisioner):
    """Provides a kernel that was forked before, or without one a fresh kernel as Jupyter does."""

    def __init__(self, kernel: ForkedKernel | None, **options: Any) -> None:
        super().__init__(**options)
        self._kernel = kernel

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        """Start the kernel."""
        if not self._kernel:
            return await super().launch_kernel(cmd, **options)
        self._kernel.start(cmd[cmd.index("-f") :], options["env"])
        self.process: Any = self._kernel
        self.pid = self.pgid = self._kernel.pid  # it leads a session of its own
        self.cwd = options["cwd"]
        return self.connection_info

    async def post_launch(self, **options: Any) -> None:
        """Wait for the kernel's sockets: a client that connects too soon retries after 0.1 s."""
        await super().post_launch(**options)
        info: Mapping[str, Any] = self.connection_info
        sockets = [Path(f"{info['ip']}-{info[f'{name}_port']}") for name in CHANNELS]
        deadline = time.monotonic() + SOCKETS_S
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
