"""Executors: where fork servers run, and how the engine speaks to them.

The fork server is the same program everywhere, and reads and writes JSON lines.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ci.errors import MachineError, UsageError
from ci.execute.leases import Lease
from ci.plan.gpus import Gpu
from ci.plan.planner import Run


class NodeLostError(MachineError):
    """A run is lost with its machine, or was not submitted: it should execute once more."""


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

    @property
    def may_serve_again(self) -> bool:
        """Whether it has the time for another run."""

    @property
    def wait_reason(self) -> str:
        """Why a scheduler has not started it yet; empty if it has started."""

    def attempt(self, path: Path) -> str:
        """The path of an attempt as the server sees it; from now on, a run may write there."""

    def memory(self, pid: int) -> int:
        """The bytes that a run process uses; 0 where the executor limits them itself."""


class Executor(Protocol):
    """A place where fork servers run.

    `provenance` is added to the environment that a server reports. `shared` says whether one server
    serves all runs, or each slot has its own. `is_scheduled` says whether a scheduler starts
    servers and leases GPUs and memory: then a server serves runs of any lesson with as many ranks
    and GPUs. Otherwise the engine leases them, and the runs of a server are of one lesson.
    """

    provenance: Mapping[str, str]
    shared: bool
    is_scheduled: bool

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> ServerChannel:
        """Start a fork server for `runs`, with `variables` in its environment.

        Their attempts will be below `folder`. Unless the executor is `shared`, they use the GPUs of
        `lease`.
        """

    def facts(self) -> Mapping[str, object]:
        """Everything beside the course that a result depends on here, as plain data."""

    def lesson(self, path: Path) -> str:
        """The path of a lesson's script as a server sees it."""

    def reclaim(self, path: Path) -> None:
        """Take the attempt `path` back: its run must no longer write there."""


def parse(on: str, slurm_args: str = "", *, detach: bool = False) -> str:
    """Read the value of `--on`, of which COURSE_ON is the default.

    Raises UsageError, also for `slurm_args` or `detach` without Slurm.
    """
    variable = os.environ.get("COURSE_ON", "auto")
    source, value = ("COURSE_ON=", variable) if on == "auto" else ("--on ", on)
    if value not in ("auto", "here", "lab", "slurm"):
        raise UsageError(f"{source}{value}: expected auto, here, lab or slurm")
    if slurm_args and value != "slurm":
        raise UsageError("--slurm-args: needs --on slurm")
    if detach and value != "slurm":
        raise UsageError("--detach: needs --on slurm")
    return value


def choose(
    on: str,
    gpus: Sequence[Gpu],
    docker: Path,
    *,
    slots: int = 1,
    as_root: bool = False,
    slurm_args: str = "",
) -> tuple[Executor, list[str]]:
    """The executor that `--on auto | here | lab | slurm` means, and remarks for the user.

    `auto` takes the lab where its image is built from what is in the folder `docker` now. Raises
    UsageError, and MachineError where the executor is not ready.
    """
    from ci.execute.container import ContainerExecutor
    from ci.execute.local import LocalExecutor

    if (on := parse(on)) == "here":
        return LocalExecutor(), []
    if on == "slurm":
        from ci.execute.slurm.executor import SlurmExecutor

        return SlurmExecutor.ready(slurm_args), []
    try:
        return ContainerExecutor.ready(gpus, docker, slots=slots, as_root=as_root)
    except MachineError as error:
        if on == "lab":
            raise MachineError(f"{error}; or use --on here") from None
        return LocalExecutor(), [f"on this machine, not in the lab: {error}"]
