"""Containers of an engine that leaves out parts of its answers, or is gone."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import NotFound
from requests.exceptions import ConnectionError

from ci.lab import containers, docker_engine
from ci.lab.containers import Container


class Engine:
    """The SDK's client and its one container, whose state is `attrs`, or which has vanished."""

    def __init__(self) -> None:
        self.attrs: dict[str, Any] = {}
        self.vanished, self.removed = False, False
        self.end, self._streams = socket.socketpair()
        self.containers = self

    def create(self, *_: object, **__: object) -> "Engine":
        return self

    def attach_socket(self, **_: object) -> Any:
        return self._streams.makefile("rb", buffering=0)

    def start(self) -> None: ...

    def wait(self, **_: object) -> None:
        raise ConnectionError

    def reload(self) -> None:
        if self.vanished:
            raise NotFound("no such container")

    def stop(self, **_: object) -> None: ...

    def remove(self, **_: object) -> None:
        self.removed = True


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that `connect` finds."""
    engine = Engine()
    monkeypatch.setattr(docker_engine, "connect", lambda: contextlib.nullcontext(engine))
    yield engine
    engine.end.close()


@pytest.fixture
def container(engine: Engine) -> Iterator[Container]:
    """A container of it, which has ended."""
    container = Container("image", ["true"], containers.hardened(2**30, user="1000:1000"))
    yield container
    engine.end.shutdown(socket.SHUT_RDWR)
    list(container.lines())
    container.close()
    assert engine.removed


@pytest.mark.parametrize(
    ("attrs", "ending", "succeeded"),
    [
        ({}, "was gone, exit status unknown", False),
        ({"State": None}, "was gone, exit status unknown", False),
        ({"State": {"ExitCode": 0}}, "was gone, exit status 0", True),
        ({"State": {"ExitCode": 7}}, "was gone, exit status 7", False),
        ({"State": {"Running": True, "ExitCode": 0}}, "hangs", False),
        (
            {"State": {"OOMKilled": True, "ExitCode": 137}},
            "was out of memory: the container may take 1.0 GiB",
            False,
        ),
    ],
)
def test_an_ending_is_told_by_what_the_engine_says(
    engine: Engine, container: Container, attrs: dict[str, Any], ending: str, succeeded: bool
) -> None:
    """What it leaves out is unknown, and never taken for success."""
    engine.attrs = attrs
    assert (container.ending(), container.has_succeeded()) == (ending, succeeded)


def test_a_container_that_has_vanished_is_gone(engine: Engine, container: Container) -> None:
    """Or its engine is: neither knows how it ended."""
    engine.vanished = True
    assert container.ending() == "is gone, or the engine is"
    assert not container.has_succeeded()
