"""The engine's side of the conversation with a worker."""

import contextlib
import json
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.execute.events import CellStarted, End, Execution
from ci.execute.executor import Executor, WorkerChannel
from ci.execute.leases import Lease
from ci.execute.run_queue import RunQueue
from ci.plan import attempts
from ci.plan.planner import Run

STARTUP_S = 120.0  # for a worker to start, and to import what lessons import
GRACE_S = 60.0  # beyond a run's own deadline, which the worker enforces
CLOSE_S = 10.0  # for the end of its output
POLL_S = 0.2


class WorkerClient:
    """Has a worker execute one run at a time. It is `alive` until its worker has ended."""

    def __init__(
        self,
        channel: WorkerChannel,
        lease: Lease,
        executor: Executor,
        waiting: RunQueue,
        *,
        forked: bool,
    ) -> None:
        """With `forked`, kernels are forked from a process that has imported torch."""
        self.lease, self._channel, self._executor = lease, channel, executor
        self._waiting, self._forked = waiting, forked
        self._lines = queue.SimpleQueue[str]()
        self._environment: dict[str, str] = {}
        self._ended: tuple[Run, str] | None = None  # a run that we end, and the reason
        self._read_error = ""
        self._deadline = 0.0
        self.run: Run | None = None
        self.alive = True
        self.stuck = False  # whether a process of a run cannot be killed
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def memory(self) -> int:
        """The bytes that the worker's descendants use."""
        return self._channel.memory()

    def end(self, run: Run, reason: str) -> None:
        """End `run` for this reason, unless it has ended by now."""
        self._ended = (run, reason)

    def close(self) -> None:
        """End the worker and everything that it has left."""
        if self.stuck:
            self._channel.abandon()
        self._channel.close()
        self._reader.join(0 if self.stuck else CLOSE_S)

    def execute(self, run: Run, attempt: Path) -> Iterator[CellStarted | Execution]:
        """Execute `run` in the folder `attempt`; ends with its Execution, unless this raises.

        Raises MachineError where the worker's torch cannot use the GPUs of the lease.
        """
        self.run = run
        start = time.monotonic()
        self._request(run, attempt)
        self._deadline = start + STARTUP_S
        for message in self._messages():
            match message["event"]:
                case "ready":
                    self._environment = {**message["environment"], **self._executor.provenance}
                    _require_cuda(run, self._environment)
                case "executing":
                    self._deadline = time.monotonic() + run.timeout_s + GRACE_S
                case "cell":
                    yield CellStarted(run, message["cell"], message["cells"])
                case "ended":
                    yield self._execution(run, attempt, message)
                    return
        yield self._lost(run, attempt, time.monotonic() - start)

    def _request(self, run: Run, attempt: Path) -> None:
        request = {
            "run": run.key,
            "lesson": self._executor.lesson(run.lesson.path),
            "digest": run.lesson.digest,
            "parameters": dict(run.parameters),
            "attempt": self._channel.attempt(attempt),
            "timeout_s": run.timeout_s,
            "forked": self._forked,
            "variables": {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self.lease.gpus)},
        }
        with contextlib.suppress(OSError):  # a worker that is gone sends no answer
            self._channel.send(json.dumps(request) + "\n")

    def _messages(self) -> Iterator[dict[str, Any]]:
        """The worker's messages, until it ends, misses the deadline, or has to be ended."""
        while time.monotonic() < self._deadline and not self._waiting.stopped:
            try:
                line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                if self._kill_reason:
                    return
                continue
            if not line:
                return
            with contextlib.suppress(ValueError):  # another program's output, of a sitecustomize
                message = json.loads(line)
                if isinstance(message, dict) and "event" in message:
                    yield message

    def _read(self) -> None:
        try:
            for line in self._channel.lines():
                self._lines.put(line)
        except Exception as error:  # of the Docker SDK's socket, for example
            self._read_error = f"its worker cannot be read: {type(error).__name__}: {error}"
        finally:
            self._lines.put("")  # the end

    def _execution(self, run: Run, attempt: Path, message: Mapping[str, Any]) -> Execution:
        """The execution of which the worker has sent the end."""
        self.stuck = bool(message["stuck"])
        if self.stuck:
            self.alive = False
        self._executor.reclaim(attempt)
        notebook = attempts.tidy(attempt)
        return Execution(
            run,
            attempt,
            End(message["end"]),
            cell=message["cell"],
            reason=message["reason"],
            machine_fault=self.stuck or message["machine_fault"],
            notebook=notebook if message["saved"] else None,
            seconds=message["seconds"],
            date=attempts.timestamp(),
            environment=self._environment,
        )

    def _lost(self, run: Run, attempt: Path, seconds: float) -> Execution:
        """The execution of a run whose worker has ended, hangs, or has to be ended."""
        self.alive = False
        reason = self._kill_reason or self._read_error or f"its worker {self._channel.ending()}"
        self._channel.close()  # before its attempt is tidied
        self._executor.reclaim(attempt)
        attempts.tidy(attempt)
        if self._waiting.stopped:
            shutil.rmtree(attempt, ignore_errors=True)
        return Execution(
            run,
            attempt,
            End.FAILED,
            reason=reason,
            seconds=seconds,
            date=attempts.timestamp(),
            environment=self._environment,
        )

    @property
    def _kill_reason(self) -> str:
        """Why the current run has to be ended; empty while it may go on."""
        if self._waiting.stopped:
            return "interrupted"
        run, reason = self._ended or (None, "")
        return reason if run is self.run else ""


def _require_cuda(run: Run, environment: Mapping[str, str]) -> None:
    if run.gpus and not environment.get("cuda"):
        torch = environment.get("torch")
        raise MachineError(
            f"the run leased {run.gpus[0].name}, but torch {torch} is a CPU build: "
            "install the CUDA build, or use --gpus none"
        )
