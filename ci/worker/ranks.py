"""The server that a lesson's ranks are forked from, in a warm kernel.

multiprocessing's "forkserver" starts a Python that imports torch, seconds for each kernel. A warm
kernel has a fork of itself at hand instead, made while it had one thread, with torch imported. It
becomes that server when the first rank is started, and gets what a process of multiprocessing's own
would inherit then. Where the lesson has made a difference by then, it stands aside for such a one.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

LARGEST = 2**20  # bytes of an environment


def stand_by(reseed: Callable[[], None]) -> Callable[[], None]:
    """Fork the server, which waits; `reseed` gives it random numbers of its own.

    Returns what is to be called before the lesson begins: what it changes after that counts.
    """
    orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not (server := os.fork()):
        orders.close()
        try:
            reseed()
            _serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    imported = set(sys.modules)
    return lambda: _offer(server, orders, imported)


def _offer(process: int, orders: socket.socket, imported: set[str]) -> None:
    """Have the first rank come from our process, unless the lesson makes a difference first."""
    server: Any = forkserver._forkserver
    found = _inheritance()

    def ensure_running() -> None:
        vars(server).pop("ensure_running", None)  # from now on, multiprocessing's own
        with orders, suppress(OSError):
            if _inheritance() == found and imported >= set(server._preload_modules):
                address, alive = _employ(orders)
                server._forkserver_pid = process
                server._forkserver_address, server._forkserver_alive_fd = address, alive
        server.ensure_running()

    server.ensure_running = ensure_running


def _inheritance() -> list[Any]:
    return [dict(os.environ), os.getcwd()]  # noqa: PTH109


def _employ(orders: socket.socket) -> tuple[str, int]:
    """Tell our process to serve: its address, and what it takes for a sign of our life."""
    with socket.socket(socket.AF_UNIX) as listener:
        address = str(connection.arbitrary_address("AF_UNIX"))  # type: ignore[attr-defined]
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen()
        theirs, alive = os.pipe()
        order = json.dumps(_inheritance()).encode()
        socket.send_fds(orders, [order], [listener.fileno(), theirs, 0, 1, 2])
        os.close(theirs)
    return address, alive


def _serve(orders: socket.socket) -> None:
    """In the fork: wait for the order, and be multiprocessing's server; without one, end."""
    order, descriptors, _, _ = socket.recv_fds(orders, LARGEST, 5)
    if not order:
        return
    orders.close()
    listener, alive, *streams = descriptors
    for number, stream in enumerate(streams):  # by now the kernel's: what ranks print is shown
        os.dup2(stream, number)
        os.close(stream)
    environment, folder = json.loads(order)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forkserver.main(listener, alive, [])
