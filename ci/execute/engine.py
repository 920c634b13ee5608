"""Execute runs in parallel slots, and tell what happens."""

import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import cast

from ci.errors import CourseError, MachineError
from ci.execute.events import End, Event, Execution, Finished, Started, Waiting
from ci.execute.executor import Executor
from ci.execute.leases import Lease
from ci.execute.run_queue import RunQueue
from ci.execute.worker_client import WorkerClient
from ci.plan import attempts, memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

POLL_S = 0.5  # between two looks at the machine's memory

Events = queue.SimpleQueue[Event | Exception]


def execute(
    runs: Sequence[Run],
    folder: Path,
    executor: Executor,
    *,
    slots: int = 1,
    gpus: Sequence[Gpu] = (),
    reserve: int | None = None,
) -> Generator[Event, None, None]:
    """Execute `runs` with `executor`, up to `slots` in parallel, and yield what happens.

    Runs start in this order, as soon as `gpus` can be leased and while `reserve` bytes of memory
    (5 % by default) are left. Each run gets a new attempt below `folder`, and ends with a
    `Finished`, even if the machine or the pipeline fails. The first runs start at once, before
    the first event is consumed; closing the generator ends all runs.
    """
    reserved = memory.reserve() if reserve is None else reserve
    waiting = RunQueue(runs, gpus, reserved + memory.RUN_BYTES, slots=slots, shared=executor.shared)
    events = Events()
    workers = [Slot(number, waiting, folder, executor, events) for number in range(slots)]
    happening = _follow(len(runs), workers, waiting, events, reserved)
    next(happening)  # starts the slots, and makes sure that closing the generator ends them
    return cast("Generator[Event, None, None]", happening)


def _follow(
    left: int, slots: Sequence["Slot"], waiting: RunQueue, events: Events, reserved: int
) -> Generator[Event | None, None, None]:
    """Yield None once the slots have started, then all events until `left` runs have finished."""
    next_look = 0.0
    try:
        for slot in slots:
            slot.start()
        yield None
        while left:
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=POLL_S)
                if isinstance(event, Exception):
                    raise event
                left -= isinstance(event, Finished)
                yield event
            if run := waiting.newly_blocked():
                yield Waiting(run)
            if time.monotonic() > next_look:
                next_look = time.monotonic() + POLL_S
                if memory.available() < reserved:
                    _end_largest(slots)
    finally:
        waiting.stop()
        for slot in slots:
            if slot.ident:
                slot.join()


def _end_largest(slots: Sequence["Slot"]) -> None:
    """End the run that uses the most memory, if it uses more than a run is expected to."""
    clients = [client for slot in slots if (client := slot.client)]
    found = [(client.memory(), client.run, client) for client in clients]
    used, run, largest = max(found, key=lambda each: each[0], default=(0, None, None))
    if used > memory.RUN_BYTES and run and largest:
        largest.end(
            run,
            f"out of memory: it used {used / memory.GIB:.1f} GiB, and the machine with its "
            f"{memory.total() / memory.GIB:.1f} GiB was about to swap; try --jobs 1",
        )


class Slot(threading.Thread):
    """Executes one run after the other, and lets a worker serve several where it can."""

    def __init__(
        self, number: int, waiting: RunQueue, folder: Path, executor: Executor, events: Events
    ) -> None:
        super().__init__(name=f"slot {number}")
        self._number, self._waiting, self._folder = number, waiting, folder
        self._executor, self._events = executor, events
        self.client: WorkerClient | None = None
        self._start = time.monotonic()

    def run(self) -> None:
        """Execute runs until none is left."""
        try:
            while found := self._waiting.take():
                self._serve(*found)
        except Exception as error:  # the thread that consumes the events raises it again
            self._events.put(error)

    def _serve(self, first: Run, lease: Lease) -> None:
        """Execute `first`, and compatible runs after it."""
        run: Run | None = first
        is_stuck = False
        try:
            while run:
                attempt = attempts.begin(run, self._folder)
                try:
                    self.client = self.client or self._client(first, lease)
                    self._execute(self.client, run, attempt)
                except Exception as error:  # it becomes the outcome of this run
                    self._end_worker(attempt)
                    self._finish(failure(run, attempt, error), lease)
                    break
                is_alive = self.client.alive
                run = self._waiting.next_compatible(first, lease) if is_alive else None
        finally:
            client, self.client = self.client, None
            if client:
                client.close()
                is_stuck = client.stuck
            self._waiting.release(lease, withhold=is_stuck)

    def _client(self, first: Run, lease: Lease) -> WorkerClient:
        runs = [first, *self._waiting.compatible(first)]
        is_forked = self._waiting.share(first) >= 1
        channel = self._executor.start(runs, lease, self._folder, first.environment)
        return WorkerClient(channel, lease, self._executor, self._waiting, forked=is_forked)

    def _execute(self, client: WorkerClient, run: Run, attempt: Path) -> None:
        self._events.put(Started(run, self._number, self._elapsed(), client.lease.gpus))
        for happened in client.execute(run, attempt):
            if isinstance(happened, Execution):
                self._finish(happened, client.lease)
            else:
                self._events.put(happened)

    def _end_worker(self, attempt: Path) -> None:
        """End the worker, so that neither it nor its lesson writes to the attempt any more."""
        if self.client:
            self.client.close()
        with contextlib.suppress(OSError):
            self._executor.reclaim(attempt)
        attempts.tidy(attempt)

    def _finish(self, execution: Execution, lease: Lease) -> None:
        self._events.put(Finished(execution, self._number, self._elapsed(), lease.gpus))

    def _elapsed(self) -> float:
        return time.monotonic() - self._start


def failure(run: Run, attempt: Path, error: Exception) -> Execution:
    """The execution of a run that the machine or the pipeline could not execute."""
    reason = str(error)
    if not isinstance(error, CourseError):
        reason = f"the pipeline broke: {type(error).__name__}: {error}"
        with (attempt / attempts.LOG).open("a") as log:
            log.writelines(traceback.format_exception(error))
    return Execution(
        run,
        attempt,
        End.FAILED,
        reason=reason,
        machine_fault=isinstance(error, MachineError),
        date=attempts.timestamp(),
    )
