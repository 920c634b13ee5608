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
from ci.execute.executor import Executor, NodeLostError
from ci.execute.leases import Lease
from ci.execute.run_queue import RunQueue
from ci.execute.server_client import RunClient, ServerClient
from ci.execute.servers import Servers
from ci.machine import atomic
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
    servers: Servers | None = None,
) -> Generator[Event, None, None]:
    """Execute `runs` with `executor`, up to `slots` in parallel, and yield what happens.

    Runs start in this order, as soon as `gpus` can be leased and while `reserve` bytes of memory
    (5 % by default) are left. Each run gets a new attempt below `folder`, and ends with a
    `Finished`, even if the machine or the pipeline fails. The first runs start at once, before
    the first event is consumed; closing the generator ends all runs, and their fork servers unless
    `servers` of the executor are given.
    """
    reserved = memory.reserve() if reserve is None else reserve
    headroom = reserved + memory.RUN_BYTES
    if executor.is_scheduled:
        reserved = headroom = 0  # the runs use the memory of other machines
    waiting = RunQueue(runs, gpus, headroom, is_scheduled=executor.is_scheduled)
    events = Events()
    with contextlib.ExitStack() as stack:
        if servers is None:
            servers = Servers(executor)
            stack.callback(servers.close)
        numbers = range(min(slots, len(runs)) if executor.is_scheduled else slots)
        all_slots = [Slot(number, waiting, folder, servers, events) for number in numbers]
        happening = _follow(len(runs), all_slots, waiting, events, reserved, stack.pop_all())
    next(happening)  # starts the slots, and makes sure that closing the generator ends them
    return cast("Generator[Event, None, None]", happening)


def _follow(
    left: int,
    slots: Sequence["Slot"],
    waiting: RunQueue,
    events: Events,
    reserved: int,
    end: contextlib.ExitStack,
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
        with end:
            for slot in slots:
                if slot.ident:
                    slot.join()


def _end_largest(slots: Sequence["Slot"]) -> None:
    """End the run that uses the most memory, if it uses more than a run is expected to."""
    running = [client for slot in slots if (client := slot.client)]
    found = [(client.memory(), client) for client in running]
    used, largest = max(found, key=lambda each: each[0], default=(0, None))
    if used > memory.RUN_BYTES and largest:
        largest.end(
            f"out of memory: it used {used / memory.GIB:.1f} GiB, and the machine with its "
            f"{memory.total() / memory.GIB:.1f} GiB was about to swap; try --jobs 1"
        )


class Slot(threading.Thread):
    """Executes one run after the other; `client` is that of the run in progress."""

    def __init__(
        self, number: int, waiting: RunQueue, folder: Path, servers: Servers, events: Events
    ) -> None:
        super().__init__(name=f"slot {number}")
        self._number, self._waiting, self._folder = number, waiting, folder
        self._servers, self._events = servers, events
        self.client: RunClient | None = None
        self._start = time.monotonic()
        self._is_refused = False  # a scheduler allows no further server

    def run(self) -> None:
        """Execute runs until none is left."""
        try:
            while not self._is_refused and (found := self._waiting.take()):
                self._serve(*found)
        except Exception as error:  # the thread that consumes the events raises it again
            self._events.put(error)

    def _serve(self, first: Run, lease: Lease) -> None:
        """Execute `first` and, if its server is not shared, others like it."""
        run: Run | None = first
        server: ServerClient | None = None
        is_stuck = False
        try:
            if self._servers.are_scheduled:
                server = self._server(first, lease)
                run = self._once_started(server, first, lease)
            while run and not is_stuck:
                attempt = attempts.begin(run, self._folder)
                try:
                    server = server or self._server(first, lease)
                    is_stuck = self._execute(server, run, attempt, lease)
                except NodeLostError as error:
                    if self._waiting.again(run):
                        atomic.remove(attempt)
                        self._events.put(Waiting(run, f"to execute again: {error}"))
                    else:
                        self._finish(failure(run, attempt, error), lease)
                    break
                except Exception as error:  # it becomes the outcome of this run
                    self._finish(failure(run, attempt, error), lease)
                    break
                run = self._waiting.next_like(first, lease) if server.may_serve_again else None
        finally:
            if server:
                self._servers.give_back(server)
            self._waiting.release(lease, withhold=is_stuck)

    def _once_started(self, server: ServerClient, first: Run, lease: Lease) -> Run | None:
        """Wait until a scheduler has started `server`; the run for it, None if it is not needed.

        Meanwhile other slots may execute `first`, so that no run waits for a particular job.
        """
        self._waiting.put_back(first)
        reported = ""
        while not server.answered.wait(POLL_S / 2):
            if not self._waiting.has_like(first):
                return None
            reason = server.channel.wait_reason
            if reason and reason != reported:
                reported = reason
                self._events.put(Waiting(first, reason))
        self._is_refused = not server.alive and self._servers.any_alive
        if self._is_refused:
            return None  # the other servers execute all runs
        return self._waiting.next_like(first, lease)

    def _server(self, first: Run, lease: Lease) -> ServerClient:
        return self._servers.lend([first, *self._waiting.like(first)], lease, self._folder)

    def _execute(self, server: ServerClient, run: Run, attempt: Path, lease: Lease) -> bool:
        """Execute a run; whether a process of it cannot be killed."""
        job = server.environment.get("Slurm job", "")
        self._events.put(Started(run, self._number, self._elapsed(), lease.gpus, job))
        self.client = client = RunClient(server, run, attempt, self._waiting)
        try:
            for happened in client.execute(lease):
                if isinstance(happened, Execution):
                    self._finish(happened, lease)
                else:
                    self._events.put(happened)
        finally:
            self.client = None
        return client.is_stuck

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
