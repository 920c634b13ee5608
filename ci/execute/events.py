"""What `engine.execute` tells of the runs that it executes: one class per kind of event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ci.plan.gpus import Gpu
from ci.plan.planner import Run

NO_SLOT = -1  # the slot of runs that no slot of this command executes


class End(StrEnum):
    """How an execution ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Execution:
    """What the execution of a run has left.

    `attempt` is the folder of its files, `notebook` the executed notebook in it, if there is one.
    `cell` is the id of the cell at fault and `reason` the fault, both empty where it completed;
    `machine_fault` says that the machine caused it, and not the course. `seconds` is the wall time
    of the execution, `date` its end (UTC), `environment` the versions and devices that it ran with.
    """

    run: Run
    attempt: Path
    end: End
    cell: str = ""
    reason: str = ""
    machine_fault: bool = False
    notebook: Path | None = None
    seconds: float = 0.0
    date: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Waiting:
    """A run waits for GPUs that another invocation on this machine has leased, or for `reason`."""

    run: Run
    reason: str = ""


@dataclass(frozen=True)
class Started:
    """A slot has started a run on leased GPUs, `at_s` seconds after the first run could start.

    `job` is the scheduler's job in which it runs, if there is one.
    """

    run: Run
    slot: int
    at_s: float
    gpus: tuple[Gpu, ...] = ()
    job: str = ""


@dataclass(frozen=True)
class Submitted:
    """A scheduler has the run, and nobody waits for its end; `place` is where it is."""

    run: Run
    place: str


@dataclass(frozen=True)
class CellStarted:
    """Cell `cell` (from 0) of the `cells` of a run starts."""

    run: Run
    cell: int
    cells: int


@dataclass(frozen=True)
class Finished:
    """A run has ended, and its slot and GPUs are free again; `at_s` as in `Started`."""

    execution: Execution
    slot: int
    at_s: float
    gpus: tuple[Gpu, ...] = ()


Event = Submitted | Waiting | Started | CellStarted | Finished
