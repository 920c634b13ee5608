"""Containers of an engine whose answers are incomplete, or which is gone."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import NotFound
from requests.exceptions import ConnectionError

from ci.errors import MachineError
from ci.lab import containers, docker_engine
from ci.lab.containers import Container


class Engine:
    """A replacement of the SDK's client and of its only container."""

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
    """The engine to which `connect` connects."""
    engine = Engine()
    monkeypatch.setattr(docker_engine, "connect", lambda: contextlib.nullcontext(engine))
    yield engine
    engine.end.close()


@pytest.fixture
def container(engine: Engine) -> Iterator[Container]:
    """Its container, which has ended."""
    container = Container("image", ["true"], containers.hardened_options(2**30, user="1000:1000"))
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
def test_an_ending_is_what_the_engine_reports(
    engine: Engine, container: Container, attrs: dict[str, Any], ending: str, succeeded: bool
) -> None:
    """A missing part is unknown, and never counts as success."""
    engine.attrs = attrs
    assert (container.ending(), container.has_succeeded()) == (ending, succeeded)


def test_a_container_that_was_killed_is_not_the_lessons_fault(
    engine: Engine, container: Container
) -> None:
    """No lesson can kill the first process of its container."""
    engine.attrs = {"State": {"ExitCode": 137}}
    with pytest.raises(MachineError, match="the container was killed: by `docker kill`"):
        container.ending()


def test_a_container_that_has_vanished_is_gone(engine: Engine, container: Container) -> None:
    """Or the engine is: nobody knows how it ended, and the lesson is not blamed."""
    engine.vanished = True
    with pytest.raises(MachineError, match="the container is gone: the Docker engine has ended"):
        container.ending()
    assert not container.has_succeeded()
