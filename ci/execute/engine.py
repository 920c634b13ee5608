"""Workers at their place, each in a slot, and what they tell of the runs that they execute."""

import contextlib
import json
import queue
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ci.errors import MachineError
from ci.execute.executor import Place
from ci.execute.leases import Lease
from ci.execute.run_queue import Waiting
from ci.plan import attempts, memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

GRACE_S = 60.0  # beyond a run's own deadline, which the worker keeps
LOOK_S = 0.5  # between two looks at the machine's memory


@dataclass(frozen=True)
class Event:
    """What happened to a run: `waiting` (for GPUs that another invocation on this machine has),
    `started`, `cell` (n of m begins), or `ended`.

    It happened in a slot, on the GPUs that the run leased, `when` seconds after the first could
    begin. An end has a status (completed, failed, timed out), the cell and the reason of a fault,
    the notebook if the worker left one, the seconds that it took, the date (UTC), and the
    environment that it ran in.
    """

    kind: str
    run: Run
    folder: Path
    slot: int = 0
    when: float = 0.0
    gpus: tuple[Gpu, ...] = ()
    cell: int = 0
    cells: int = 0
    status: str = ""
    at: str = ""
    reason: str = ""
    executed: Path | None = None
    seconds: float = 0.0
    date: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def start(
    runs: Sequence[Run],
    folder: Path,
    place: Place,
    *,
    slots: int = 1,
    gpus: Sequence[Gpu] = (),
    reserve: int | None = None,
) -> Generator[Event, None, None]:
    """Execute `runs` at `place`, `slots` at once, and yield what happens, ends last.

    They begin at once, in this order, as GPUs are free to be leased, and while `reserve` bytes of
    memory are left (5 % of all). Each has an attempt of its own, a new folder under `folder`.
    Closing the generator ends all that is still running.
    """
    attempts.sweep(folder)
    keep = memory.reserve() if reserve is None else reserve
    waiting = Waiting(runs, gpus, keep + memory.RUN, slots=slots, shared=place.shared)
    events = queue.SimpleQueue[Event | Exception]()
    serving = [Slot(number, waiting, folder, place, events) for number in range(slots)]
    happening = _follow(len(runs), serving, waiting, events, keep)
    next(happening)  # now they begin, and from now on to close it ends them
    return cast("Generator[Event, None, None]", happening)


def _follow(
    left: int,
    serving: Sequence["Slot"],
    waiting: Waiting,
    events: "queue.SimpleQueue[Event | Exception]",
    keep: int,
) -> Generator[Event | None, None, None]:
    """None when all slots have begun; then what happens, until `left` runs have ended."""
    look = 0.0
    try:
        for slot in serving:
            slot.start()
        yield None
        while left:
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=LOOK_S)
                if isinstance(event, Exception):
                    raise event
                left -= event.kind == "ended"
                yield event
            if run := waiting.for_others():
                yield Event("waiting", run, Path())
            if time.monotonic() > look:
                look = time.monotonic() + LOOK_S
                if memory.left() < keep:
                    _end_largest(serving)
    finally:
        waiting.stop()
        for slot in serving:
            if slot.ident:
                slot.join()


def _end_largest(serving: Sequence["Slot"]) -> None:
    """End the run that has the most memory, if that is more than a run is expected to want."""
    workers = [worker for slot in serving if (worker := slot.worker)]
    found = [(worker.memory(), worker.run, worker) for worker in workers]
    took, run, largest = max(found, key=lambda each: each[0], default=(0, None, None))
    if took > memory.RUN and run and largest:
        largest.end(
            run,
            f"out of memory: it had taken {took / memory.GIB:.1f} GiB, and the machine, which has "
            f"{memory.total() / memory.GIB:.1f}, was about to swap; try --jobs 1",
        )


class Slot(threading.Thread):
    """Executes one run after the other, as long as some wait."""

    def __init__(
        self,
        number: int,
        waiting: Waiting,
        folder: Path,
        place: Place,
        events: "queue.SimpleQueue[Event | Exception]",
    ) -> None:
        super().__init__(name=f"slot {number}")
        self._number, self._waiting, self._folder = number, waiting, folder
        self._place, self._events = place, events
        self.worker: Worker | None = None
        self._began = time.monotonic()

    def run(self) -> None:
        """A worker goes on to the next run where that needs the same."""
        try:
            while found := self._waiting.take():
                first, lease = found
                try:
                    self._serve(first, lease)
                finally:
                    self.worker = None
                    self._waiting.leave(lease)
        except Exception as error:  # the thread that consumes the events raises it again
            self._events.put(error)

    def _serve(self, first: Run, lease: Lease) -> None:
        run: Run | None = first
        with Worker(first, lease, self._folder, self._place, self._waiting) as worker:
            self.worker = worker
            while run:
                for event in worker.execute(run):
                    when = time.monotonic() - self._began
                    self._events.put(replace(event, slot=self._number, when=when, gpus=lease.gpus))
                run = self._waiting.take_on(first, lease) if worker.alive else None


class Worker:
    """A worker for `first` and for runs like it; if it may expect one, its kernels are warm."""

    def __init__(
        self, first: Run, lease: Lease, folder: Path, place: Place, waiting: Waiting
    ) -> None:
        self._folder, self._place, self._waiting = folder, place, waiting
        self._lease, self._warm = lease, waiting.share(first) >= 1
        runs = [first, *waiting.alike(first)]
        self._channel = place.start(runs, lease, folder, first.environment)
        self._lines = queue.SimpleQueue[str]()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._environment: dict[str, str] = {}
        self._ended: tuple[Run, str] | None = None  # by us, and why
        self.run: Run | None = None
        self.alive = True

    def memory(self) -> int:
        """What it has, and all that it has started, in bytes."""
        return self._channel.memory()

    def end(self, run: Run, reason: str) -> None:
        """End `run`, for this reason, unless it has ended by now."""
        self._ended = (run, reason)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker, and whatever it could not end itself."""
        self._channel.close()
        self._reader.join()

    def execute(self, run: Run) -> Iterator[Event]:
        """Execute one run; the last event is its end, whatever becomes of the worker."""
        self.run = run
        path = attempts.begin(run, self._folder)
        yield Event("started", run, path)
        began = time.monotonic()
        self._request(run, path)
        deadline = began + run.timeout_s + GRACE_S
        for message in self._messages(deadline):
            if message["event"] == "ready":
                self._environment = {**message["environment"], **self._place.facts}
                _require_cuda(run, self._environment)
            elif message["event"] == "cell":
                yield Event("cell", run, path, cell=message["cell"], cells=message["cells"])
            elif message["event"] == "ended":
                self._place.reclaim(path)
                left = attempts.tidy(path)
                yield Event(
                    "ended",
                    run,
                    path,
                    status=message["status"],
                    at=message["cell"],
                    reason=message["reason"],
                    executed=left if message["saved"] else None,
                    seconds=message["seconds"],
                    date=attempts.now(),
                    environment=self._environment,
                )
                return
        self.alive = False
        reason = self._death()
        self._channel.close()  # before we tidy up behind it
        self._place.reclaim(path)
        attempts.tidy(path)
        if self._waiting.stopped:
            shutil.rmtree(path, ignore_errors=True)
        yield Event(
            "ended",
            run,
            path,
            status="failed",
            reason=reason,
            seconds=time.monotonic() - began,
            date=attempts.now(),
            environment=self._environment,
        )

    def _request(self, run: Run, path: Path) -> None:
        request = {
            "run": run.key,
            "lesson": self._place.lesson(run.lesson.path),
            "digest": run.lesson.digest,
            "parameters": dict(run.parameters),
            "output": self._channel.attempt(path),
            "timeout_s": run.timeout_s,
            "warm": self._warm,
            "environment": {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self._lease.gpus)},
        }
        with contextlib.suppress(OSError):  # a worker that is gone shows in its answers
            self._channel.send(json.dumps(request) + "\n")

    def _messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        """What the worker says, until it ends, hangs beyond `deadline`, or we are to stop."""
        while time.monotonic() < deadline and not self._waiting.stopped:
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                if self._why:
                    return
                continue
            if not line:
                return
            with contextlib.suppress(ValueError):  # something else printed, a sitecustomize
                message = json.loads(line)
                if isinstance(message, dict) and "event" in message:
                    yield message

    @property
    def _why(self) -> str:
        """Why we end the run that goes on; empty where we don't."""
        run, reason = self._ended or (None, "")
        return reason if run is self.run else ""

    def _read(self) -> None:
        for line in self._channel.lines():
            self._lines.put(line)
        self._lines.put("")

    def _death(self) -> str:
        if self._waiting.stopped:
            return "interrupted"
        return self._why or f"its worker {self._channel.ending()}"


def _require_cuda(run: Run, environment: Mapping[str, str]) -> None:
    if run.gpus and not environment.get("cuda"):
        raise MachineError(
            f"{run.gpus[0].name} is there, but torch {environment.get('torch')} is a CPU build: "
            "install the CUDA build, or say --gpus none"
        )
