"""A port of 127.0.0.1, where a browser on this machine finds what a command serves."""

import os
import socket

from ci.errors import MachineError, UsageError

ADDRESS = "127.0.0.1"


def parse(port: str) -> int:
    """Return the value of `--port`. Raises UsageError."""
    if port.isdecimal() and 1024 <= int(port) <= 65535:
        return int(port)
    raise UsageError(f"--port {port}: must be a number from 1024 to 65535")


def require_free(port: int) -> None:
    """Raise MachineError if something listens on the port."""
    try:
        socket.create_server((ADDRESS, port)).close()
    except OSError as error:
        fault = os.strerror(error.errno or 0)
        raise MachineError(f"port {port}: {fault}: choose another with --port") from None
