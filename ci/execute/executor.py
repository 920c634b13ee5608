"""Executors: where fork servers run, and how the engine speaks to them.

The fork server is the same program everywhere, and reads and writes JSON lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ci.errors import MachineError, UsageError
from ci.execute.leases import Lease
from ci.plan.gpus import Gpu
from ci.plan.planner import Run


class Channel(Protocol):
    """A process that an executor has started."""

    def send(self, line: str, descriptors: Sequence[int] = ()) -> None:
        """Write a line to its standard input, with open files where it can inherit them.

        Raises OSError where it is gone.
        """

    def lines(self) -> Iterator[str]:
        """The lines of its standard output, until it ends."""

    def ending(self) -> str:
        """How it ended, as the end of a sentence: `was killed by SIGKILL`, `hangs`."""

    def close(self) -> None:
        """Close its input, so that it ends; then kill it and everything that it has left."""


class ServerChannel(Channel, Protocol):
    """A fork server that an executor has started."""

    inherits: bool  # whether its runs inherit the leases of their GPUs

    def attempt(self, path: Path) -> str:
        """The path of an attempt as the server sees it; from now on, a run may write there."""

    def memory(self, pid: int) -> int:
        """The bytes that a run process uses; 0 where the executor limits them itself."""

    def abandon(self) -> None:
        """Let it live on in `close`, since a process of a run cannot be killed."""


class Executor(Protocol):
    """A place where fork servers run.

    `provenance` is added to the environment that a server reports. `shared` says whether one server
    serves all runs, or each slot has its own for the runs of one lesson.
    """

    provenance: Mapping[str, str]
    shared: bool

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> ServerChannel:
        """Start a fork server for `runs`, with `variables` in its environment.

        Their attempts will be below `folder`. Unless the executor is `shared`, the runs are of one
        lesson and use the GPUs of `lease`.
        """

    def facts(self) -> Mapping[str, object]:
        """Everything beside the course that a result depends on here, as plain data."""

    def lesson(self, path: Path) -> str:
        """The path of a lesson's script as a server sees it."""

    def reclaim(self, path: Path) -> None:
        """Take the attempt `path` back: its run must no longer write there."""


def parse(on: str) -> str:
    """Read the value of `--on`. Raises UsageError."""
    if on not in ("auto", "here", "lab"):
        raise UsageError(f"--on {on}: expected auto, here or lab")
    return on


def choose(
    on: str, gpus: Sequence[Gpu], docker: Path, *, slots: int = 1, as_root: bool = False
) -> tuple[Executor, list[str]]:
    """The executor that `--on auto | here | lab` means, and remarks for the user.

    `auto` takes the lab where its image is built from what is in the folder `docker` now. Raises
    UsageError, and MachineError where the executor is not ready.
    """
    from ci.execute.container import ContainerExecutor
    from ci.execute.local import LocalExecutor

    if parse(on) == "here":
        return LocalExecutor(), []
    try:
        return ContainerExecutor.ready(gpus, docker, slots=slots, as_root=as_root)
    except MachineError as error:
        if on == "lab":
            raise MachineError(f"{error}; or use --on here") from None
        return LocalExecutor(), [f"on this machine, not in the lab: {error}"]
