"""`--port`."""

import socket

import pytest

from ci.errors import MachineError, UsageError
from ci.machine import port


def test_a_port_is_a_number() -> None:
    """It needs no special rights."""
    assert port.parse("8888") == 8888


@pytest.mark.parametrize("text", ["0", "80", "65536", "-1", "8888.0", "http", ""])
def test_an_invalid_port_is_the_command_lines_fault(text: str) -> None:
    """Ports below 1024 need root."""
    with pytest.raises(UsageError, match=f"--port {text}: must be a number from 1024 to 65535"):
        port.parse(text)


def test_a_port_that_is_taken_is_the_machines_fault() -> None:
    """The message says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {number}: .*: choose another with --port"):
            port.require_free(number)
