"""What became of a run and of each of its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.lesson.expect import Rule
from ci.lesson.lesson import Check
from ci.lesson.node import NotebookNode
from ci.plan.planner import Run

if TYPE_CHECKING:  # an unchanged run starts without NumPy
    from ci.lesson.value import Comparable


class CheckStatus(StrEnum):
    """What became of a check."""

    VERIFIED = "verified"
    GIVEN = "given"  # compared in dtype, shape and finiteness only
    DIFFERS = "differs"
    MISSING = "missing"
    INVALID = "invalid"


class Status(StrEnum):
    """What became of a run."""

    VERIFIED = "verified"
    UNCHANGED = "unchanged"  # verified by an earlier run, on which it relies
    UNCHECKED = "unchecked"
    DIFFERS = "differs"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    NEEDS_GPUS = "needs GPUs"
    SUBMITTED = "submitted"  # a scheduler has it, and nobody waits for its end


@dataclass(frozen=True)
class Result:
    """What became of one declared check. `margin` is the share of the tolerance that was used."""

    check: Check
    status: CheckStatus
    message: str = ""
    shown: str = ""
    expected: str = ""
    derivation: str = ""
    tolerance: str = ""
    margin: float | None = None
    devices: tuple[str, ...] = ()

    @property
    def green(self) -> bool:
        """Whether it was compared and agreed."""
        return self.status in (CheckStatus.VERIFIED, CheckStatus.GIVEN)


@dataclass(frozen=True)
class Answer:
    """What the solution of an exercise must show, and how it is compared."""

    expected: Comparable
    rule: Rule


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    `cell` is the id of the cell at fault and `reason` the fault; `machine_fault` says that the
    machine caused it. `attempt` is the folder of the run's files. `answers` are the values that the
    lesson's exercises ask for, by name; `key` identifies the inputs of the run's handouts;
    `not_compared` counts the cells with an output that is shown but not compared. An unchanged
    outcome relies on the earlier run of its `date`.
    """

    run: Run
    status: Status
    results: tuple[Result, ...] = ()
    reason: str = ""
    cell: str = ""
    machine_fault: bool = False
    seconds: float = 0.0
    date: str = ""
    attempt: Path | None = None
    notebook: NotebookNode | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)
    key: str = ""
    not_compared: int = 0

    @property
    def green(self) -> bool:
        """Whether it is verified, now or before, or has no checks for a reason in its header."""
        if self.status == Status.UNCHECKED:
            return bool(self.run.lesson.unchecked_because)
        return self.status in (Status.VERIFIED, Status.UNCHANGED)

    @property
    def skipped(self) -> bool:
        """Whether the run was not executed, for lack of GPUs, or not yet."""
        return self.status in (Status.NEEDS_GPUS, Status.SUBMITTED)

    @property
    def status_text(self) -> str:
        """The status in words: `verified`, `needs 2 GPUs`."""
        if self.status == Status.NEEDS_GPUS:
            needed = self.run.gpus_needed
            return f"needs {needed} GPU{'s' if needed > 1 else ''}"
        return str(self.status)

    @property
    def verdict(self) -> str:
        """The status in words, and since when where it relies on an earlier run."""
        return (
            f"unchanged since {self.date}" if self.status == Status.UNCHANGED else self.status_text
        )

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data, without its notebook; `unchanged_outcome` reads it again."""
        return {
            "lesson": self.run.lesson.name,
            "parameters": dict(self.run.parameters),
            "device": self.run.device,
            "threads": self.run.threads,
            "status": self.status_text,
            "date": self.date,
            "reason": self.reason,
            "at": self.run.lesson.location(self.cell) if self.cell else "",
            "seconds": round(self.seconds, 3),
            "attempt": str(self.attempt or ""),
            "environment": dict(self.environment),
            "not_compared": self.not_compared,
            "checks": [_result_to_json(result) for result in self.results],
        }


def _result_to_json(result: Result) -> dict[str, Any]:
    check, fields = result.check, {**vars(result)}
    del fields["check"]
    return {"name": check.name, "kind": check.kind, "line": check.line, **fields}


def skipped_outcome(run: Run) -> Outcome:
    """The outcome of a run that was not executed, because the machine lacks GPUs for it."""
    return Outcome(run, Status.NEEDS_GPUS, reason=f"{len(run.gpus)} leased")


def submitted_outcome(run: Run, place: str) -> Outcome:
    """The outcome of a run that a scheduler has, at this place."""
    return Outcome(run, Status.SUBMITTED, reason=place)


def unchanged_outcome(run: Run, attempt: Path, found: Mapping[str, Any]) -> Outcome:
    """The outcome of an earlier run with the same inputs, from its `to_json`."""
    checks = {check.name: check for check in run.lesson.checks}
    return Outcome(
        run,
        Status.UNCHANGED,
        tuple(_result_from_json(checks[facts["name"]], facts) for facts in found["checks"]),
        seconds=found["seconds"],
        date=found["date"],
        attempt=attempt,
        environment=found["environment"],
        not_compared=found.get("not_compared", 0),
    )


def _result_from_json(check: Check, facts: Mapping[str, Any]) -> Result:
    fields = {name: value for name, value in facts.items() if name not in ("name", "kind", "line")}
    fields["status"] = CheckStatus(fields["status"])
    fields["devices"] = tuple(fields["devices"])
    return Result(check, **fields)


def without_prose(outcome: Outcome) -> Outcome:
    """`outcome` with nothing of its notebook but the cells of its checks, for large sweeps."""
    if not outcome.notebook:
        return outcome
    checked = {check.cell for check in outcome.run.lesson.checks}
    cells = [cell for cell in outcome.notebook.cells if cell.id in checked]
    return replace(outcome, notebook=type(outcome.notebook)(cells=cells), answers={})


def exit_status(outcomes: Sequence[Outcome], *, gpus_required: bool) -> int:
    """The exit status of a plan.

    0: green. 1: the course is at fault. 3: the machine is, or it lacks GPUs that were required.
    4: none of these, and runs that a scheduler has are not done.
    """
    red = [outcome for outcome in outcomes if not outcome.green and not outcome.skipped]
    if any(not outcome.machine_fault for outcome in red):
        return 1
    statuses = {outcome.status for outcome in outcomes}
    if red or (gpus_required and Status.NEEDS_GPUS in statuses):
        return 3
    return 4 if Status.SUBMITTED in statuses else 0
