"""The fork server of a lesson's ranks, in a forked kernel.

multiprocessing's "forkserver" starts a Python that imports torch, which takes seconds per kernel. A
forked kernel instead keeps a fork of itself, made while it had one thread, with torch imported.
When the first rank starts, this fork becomes multiprocessing's server, with everything that a new
process would inherit then. If the lesson has changed the environment or the preloaded modules by
then, multiprocessing starts its own server.
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

    Returns a function to call before the lesson starts: only later changes count as the lesson's.
    """
    orders, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not (server := os.fork()):
        orders.close()
        try:
            reseed()
            _serve(server_end)
        finally:
            os._exit(0)
    server_end.close()
    imported = set(sys.modules)
    return lambda: _offer(server, orders, imported)


def _offer(process: int, orders: socket.socket, imported: set[str]) -> None:
    """Have multiprocessing use the forked server, unless the lesson changes something before."""
    server: Any = forkserver._forkserver
    found = _inheritance()

    def ensure_running() -> None:
        vars(server).pop("ensure_running", None)  # once only
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
    """Make the fork serve; its address, and the descriptor that keeps it alive while it is open."""
    with socket.socket(socket.AF_UNIX) as listener:
        address = str(connection.arbitrary_address("AF_UNIX"))  # type: ignore[attr-defined]
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen()
        server_alive, alive = os.pipe()
        order = json.dumps(_inheritance()).encode()
        socket.send_fds(orders, [order], [listener.fileno(), server_alive, 0, 1, 2])
        os.close(server_alive)
    return address, alive


def _serve(orders: socket.socket) -> None:
    """In the fork: wait for the order, then run multiprocessing's server; end if there is none."""
    order, descriptors, _, _ = socket.recv_fds(orders, LARGEST, 5)
    if not order:
        return
    orders.close()
    listener, alive, *streams = descriptors
    for number, stream in enumerate(
        streams
    ):  # the kernel's now, so that the notebook shows what ranks print
        os.dup2(stream, number)
        os.close(stream)
    environment, folder = json.loads(order)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forkserver.main(listener, alive, [])
