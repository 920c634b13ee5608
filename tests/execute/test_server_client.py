"""The client of a fork server that fails in rare ways."""

import json
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ci.errors import MachineError
from ci.execute import leases, server_client
from ci.execute.events import Execution
from ci.plan import attempts, planner
from ci.plan.gpus import Gpu
from tests.conftest import Read, executions

Script = Callable[[], Iterator[Mapping[str, Any]]]
READY = {"event": "ready", "environment": {"torch": "2.13.0", "cuda": "13.0"}}
ENDED = {
    **{"event": "ended", "end": "completed", "reason": "", "cell": "", "saved": False},
    **{"seconds": 1.0, "stuck": [], "machine_fault": False},
}
GPU = Gpu("0", "GPU-0", "A GPU")


class ScriptedExecutor:
    """An executor whose servers send the messages of a script; it is also their channel."""

    provenance: Mapping[str, str] = {}
    shared = True
    is_scheduled = False
    inherits = True
    may_serve_again = True
    wait_reason = ""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    def start(self, *_: Any) -> "ScriptedExecutor":
        """Start a server with the next script, or raise for `cannot_start`."""
        self._script, self._run = self._scripts.pop(0), queue.SimpleQueue[str]()
        if self._script is cannot_start:
            raise MachineError("no Docker engine answers: start it")
        return self

    def facts(self) -> Mapping[str, object]:
        """No facts."""
        return {}

    def lesson(self, path: Path) -> str:
        """The same path."""
        return str(path)

    def reclaim(self, path: Path) -> None:
        """Nothing to do."""

    def attempt(self, path: Path) -> str:
        """The same path, which names the run in the messages."""
        self._run.put(str(path))
        return str(path)

    def send(self, line: str, descriptors: Sequence[int] = ()) -> None:
        """Ignore the request."""

    def lines(self) -> Iterator[str]:
        """The messages of the script."""
        run = self._run.get()
        for message in self._script():
            yield json.dumps({"run": run, **message}) + "\n"

    def memory(self, pid: int) -> int:
        """No memory."""
        return 0

    def ending(self) -> str:
        """The same text as a process."""
        return "ended with exit status 1"

    def close(self) -> None:
        """Nothing to end."""


def cannot_start() -> Iterator[Mapping[str, Any]]:
    """A script for an executor that raises."""
    yield {}


def completes() -> Iterator[Mapping[str, Any]]:
    """The messages of one run that completes."""
    yield from (READY, {"event": "executing", "pid": 1}, ENDED)


def executed(read: Read, tmp_path: Path, *scripts: Script, sizes: str = "4") -> list[Execution]:
    """The executions of a small lesson, with one server per script."""
    runs = planner.runs([read()], [f"size={sizes}"], [], timeout_s=1)
    return executions(runs, tmp_path / "runs", ScriptedExecutor(*scripts))


def test_a_reader_that_fails_ends_the_run_at_once(read: Read, tmp_path: Path) -> None:
    """Without waiting for the deadline, because no more messages can arrive."""

    def breaks() -> Iterator[Mapping[str, Any]]:
        yield READY
        raise ValueError("not a frame")

    began = time.monotonic()
    (execution,) = executed(read, tmp_path, breaks)
    assert execution.reason == "its fork server cannot be read: ValueError: not a frame"
    assert time.monotonic() - began < server_client.GRACE_S / 2


def test_a_machine_error_is_the_outcome_of_its_run(read: Read, tmp_path: Path) -> None:
    """The other runs continue, and reports are written."""
    first, second = executed(read, tmp_path, cannot_start, completes, sizes="4,5")
    assert (first.end, first.machine_fault) == ("failed", True)
    assert first.reason == "no Docker engine answers: start it"
    assert second.end == "completed"


def test_a_machine_fault_in_a_cell_is_that_of_its_run(read: Read, tmp_path: Path) -> None:
    """The run process tells it by the exception."""

    def loses_its_gpu() -> Iterator[Mapping[str, Any]]:
        yield from (READY, {**ENDED, "end": "failed", "reason": "lost", "machine_fault": True})

    (execution,) = executed(read, tmp_path, loses_its_gpu)
    assert execution.machine_fault


def test_a_bug_in_the_pipeline_is_the_outcome_of_its_run(read: Read, tmp_path: Path) -> None:
    """Its traceback is in the log of the attempt."""

    host = tmp_path / "host"
    host.write_text("mine")

    def nonsense() -> Iterator[Mapping[str, Any]]:
        (attempt,) = (tmp_path / "runs").glob("*/*/.*")
        (attempt / attempts.LOG).symlink_to(host)  # as a lesson could do
        yield {**ENDED, "end": "nonsense"}

    (execution,) = executed(read, tmp_path, nonsense)
    assert host.read_text() == "mine"
    assert execution.reason == "the pipeline broke: ValueError: 'nonsense' is not a valid End"
    assert not execution.machine_fault
    assert "Traceback" in (execution.attempt / attempts.LOG).read_text()


def test_the_deadline_starts_with_the_execution(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow imports do not count, so that a slow disk is not reported as a run that hangs."""
    monkeypatch.setattr(server_client, "GRACE_S", 0.0)

    def slow() -> Iterator[Mapping[str, Any]]:
        yield READY
        time.sleep(1.5)  # longer than the run's own deadline
        yield from (READY, {"event": "executing", "pid": 1}, ENDED)

    assert executed(read, tmp_path, slow)[0].end == "completed"


def test_a_gpu_with_a_process_that_cannot_be_killed_is_not_leased_again(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run process keeps the lock; this invocation keeps it too."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")

    def gets_stuck() -> Iterator[Mapping[str, Any]]:
        reason = "SIGKILL does not end its process 7"
        yield from (READY, {**ENDED, "end": "failed", "reason": reason, "stuck": [7]})

    executor = ScriptedExecutor(gets_stuck)
    runs = planner.runs([read()], [], [GPU])
    (execution,) = executions(runs, tmp_path / "runs", executor, gpus=[GPU])
    assert (execution.end, execution.machine_fault) == ("failed", True)
    assert leases.GpuPool([GPU]).lease([GPU]) is None
