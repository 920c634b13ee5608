"""The engine's side of the conversation with a fork server."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.execute.events import CellStarted, End, Execution
from ci.execute.executor import Executor, ServerChannel
from ci.execute.leases import Lease
from ci.execute.run_queue import RunQueue
from ci.machine import atomic
from ci.plan import attempts
from ci.plan.planner import Run

STARTUP_S = 120.0  # for a server to start, and to import what lessons import
GRACE_S = 60.0  # beyond a run's own deadline, which its process enforces
END_S = 30.0  # for the server to end a run
CLOSE_S = 10.0  # for the end of its output
POLL_S = 0.2

Message = Mapping[str, Any]


class ServerClient:
    """Speaks to a fork server, about several runs at once. It is `alive` until the server ends."""

    def __init__(self, channel: ServerChannel, executor: Executor) -> None:
        self.channel, self.executor = channel, executor
        self.environment: Mapping[str, str] = {}  # that it reports
        self.alive = True
        self.answered = threading.Event()  # it is ready, or has ended
        self._runs: dict[str, queue.SimpleQueue[Message]] = {}
        self._sending = threading.Lock()
        self._read_error = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, request: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a request; without an error to a server that is gone, which does not answer."""
        with self._sending, contextlib.suppress(OSError):
            self.channel.send(json.dumps(request) + "\n", descriptors)

    def listen(self, run: str) -> queue.SimpleQueue[Message]:
        """The messages about a run from now on."""
        self._runs[run] = queue.SimpleQueue()
        return self._runs[run]

    def forget(self, run: str) -> None:
        """Drop what arrives about a run from now on."""
        self._runs.pop(run, None)

    @property
    def may_serve_again(self) -> bool:
        """Whether it can serve another run for the slot that has it alone."""
        return self.alive and not self.executor.shared and self.channel.may_serve_again

    def ending(self) -> str:
        """How it ended, as a sentence about a run."""
        return self._read_error or f"its fork server {self.channel.ending()}"

    def close(self) -> None:
        """End the server and everything that its runs have left."""
        self.channel.close()
        self._reader.join(CLOSE_S)

    def _read(self) -> None:
        try:
            for line in self.channel.lines():
                with contextlib.suppress(ValueError):  # another program's output
                    message = json.loads(line)
                    if isinstance(message, dict) and "event" in message:
                        self._on_message(message)
        except Exception as error:  # of the Docker SDK's socket, for example
            self._read_error = f"its fork server cannot be read: {type(error).__name__}: {error}"
        finally:
            self.alive = False
            self.answered.set()

    def _on_message(self, message: Message) -> None:
        if message["event"] == "ready":
            self.environment = {**message["environment"], **self.executor.provenance}
            self.answered.set()
        elif run := self._runs.get(message["run"]):
            run.put(message)


class RunClient:
    """Has a fork server execute one run.

    In the end, `is_stuck` says whether a process of the run cannot be killed.
    """

    def __init__(self, server: ServerClient, run: Run, attempt: Path, waiting: RunQueue) -> None:
        self.run, self._server, self._attempt, self._waiting = run, server, attempt, waiting
        self._name = str(attempt)
        self._messages = server.listen(self._name)
        self._pid = 0
        self._reason = ""  # why it has to be ended
        self._start = time.monotonic()
        self.is_stuck = False

    def memory(self) -> int:
        """The bytes that the run uses."""
        return self._server.channel.memory(self._pid) if self._pid else 0

    def end(self, reason: str) -> None:
        """End the run for this reason, unless it has ended by now."""
        self._reason = reason

    def execute(self, lease: Lease) -> Iterator[CellStarted | Execution]:
        """Execute it on the GPUs of `lease`; ends with its Execution, unless this raises.

        Raises MachineError where the server's torch cannot use the GPUs.
        """
        try:
            yield from self._follow(lease)
        except Exception:
            self.is_stuck = bool(self._abort().get("stuck"))
            self._take_back()
            raise
        finally:
            self._server.forget(self._name)

    def _follow(self, lease: Lease) -> Iterator[CellStarted | Execution]:
        self._request(lease)
        deadline = time.monotonic() + STARTUP_S
        while not self._kill_reason:
            match message := self._next_message():
                case {"event": "executing"}:
                    require_cuda(self.run, self._server.environment)
                    self._pid = message["pid"]
                    deadline = time.monotonic() + self.run.timeout_s + GRACE_S
                case {"event": "cell"}:
                    yield CellStarted(self.run, message["cell"], message["cells"])
                case {"event": "ended"}:
                    yield self._ended(message)
                    return
                case {"event": "lost"}:
                    yield self._failed(f"its process {message['ending']}", message)
                    return
                case _ if not self._server.alive and self._messages.empty():
                    self._reason = self._server.ending()
                case _ if excess := attempts.excess(self._attempt):
                    self._reason = excess
                case _ if time.monotonic() > deadline:
                    self._reason = "it hangs, and does not notice its deadline"
        yield self._failed(self._kill_reason, self._abort())

    @property
    def _kill_reason(self) -> str:
        """Why it is lost or has to be ended; empty while it may go on."""
        return "interrupted" if self._waiting.stopped else self._reason

    def _request(self, lease: Lease) -> None:
        server, run = self._server, self.run
        is_set = server.executor.is_scheduled and lease.gpus  # by the scheduler, in its job
        inherited = lease.descriptors if server.channel.inherits else []
        about = {
            "run": self._name,
            "attempt": server.channel.attempt(self._attempt),
            "variables": {} if is_set else _visible(lease),
            "leases": len(inherited),
        }
        server.send({**request(run, server.executor), **about}, inherited)

    def _next_message(self, timeout_s: float = POLL_S) -> Message:
        """The next message about the run; empty where none arrives in time."""
        with contextlib.suppress(queue.Empty):
            return self._messages.get(timeout=timeout_s)
        return {}

    def _ended(self, message: Message) -> Execution:
        """The execution of which the run's process has sent the end."""
        self.is_stuck = bool(message.get("stuck"))
        self._server.executor.reclaim(self._attempt)
        return ended(self.run, self._attempt, message, self._server.environment)

    def _failed(self, reason: str, message: Message) -> Execution:
        """The execution of a run that was lost, or ended by us; `message` is the last about it."""
        self.is_stuck = bool(message.get("stuck"))
        self._take_back()
        if self._waiting.stopped:
            atomic.remove(self._attempt)
        return Execution(
            self.run,
            self._attempt,
            End.FAILED,
            reason=reason,
            machine_fault=self.is_stuck,
            seconds=time.monotonic() - self._start,
            date=attempts.timestamp(),
            environment=self._server.environment,
        )

    def _abort(self) -> Message:
        """End the run, so that it no longer writes to its attempt; the last message about it."""
        if not self._waiting.stopped:  # else the server ends with all of its runs
            self._server.send({"end": self._name})
        deadline = time.monotonic() + (0 if self._waiting.stopped else END_S)
        while self._server.alive and time.monotonic() < deadline:
            message = self._next_message()
            if message.get("event") in ("ended", "lost"):
                return message
        self._server.close()  # it hangs too
        return {}

    def _take_back(self) -> Path | None:
        """Take the attempt back; its notebook, if there is one."""
        self._server.executor.reclaim(self._attempt)
        return attempts.tidy(self._attempt)


def request(run: Run, executor: Executor) -> Message:
    """What a fork server is asked for, apart from the attempt, on GPUs that are visible to it."""
    return {
        "lesson": executor.lesson(run.lesson.path),
        "digest": run.lesson.digest,
        "parameters": dict(run.parameters),
        "timeout_s": run.timeout_s,
        "variables": {},
        "leases": 0,
    }


def ended(run: Run, attempt: Path, message: Message, environment: Mapping[str, str]) -> Execution:
    """The execution of which the run's process has sent the end."""
    notebook = attempts.tidy(attempt)
    return Execution(
        run,
        attempt,
        End(message["end"]),
        cell=message["cell"],
        reason=message["reason"],
        machine_fault=bool(message["stuck"]) or message["machine_fault"],
        notebook=notebook if message["saved"] else None,
        seconds=message["seconds"],
        date=attempts.timestamp(),
        environment=environment,
    )


def _visible(lease: Lease) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in lease.gpus)}


def require_cuda(run: Run, environment: Mapping[str, str]) -> None:
    """Raise MachineError if a run leased GPUs that the server's torch cannot use."""
    if run.gpus and not environment.get("cuda"):
        torch = environment.get("torch")
        raise MachineError(
            f"the run leased {run.gpus[0].name}, but torch {torch} is a CPU build: "
            "install the CUDA build, or use --gpus none"
        )
