"""The runs that have not begun, for all slots: who takes which, when, and on what GPUs."""

import threading
from collections.abc import Sequence

from ci.execute.leases import Desk, Lease, pick
from ci.plan import memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.plan.schedule import following

LOOK_S = 0.2  # between two looks for GPUs, and memory, that others have


class Waiting:
    """Runs in the order in which they are to begin. Each method may be called by any thread."""

    def __init__(
        self, runs: Sequence[Run], gpus: Sequence[Gpu], room: int, *, slots: int, shared: bool
    ) -> None:
        """At a `shared` place a worker may serve several lessons. None begins beside others while
        fewer than `room` bytes of memory are left.
        """
        if unmet := [run for run in runs if pick(run.gpus, gpus) is None]:
            raise ValueError(f"{unmet[0].name}: wants GPUs that are not among those to lease")
        self._runs, self._desk, self._room = list(runs), Desk(gpus), room
        self._slots, self._shared = slots, shared
        self._changed = threading.Condition()
        self._going = 0
        self._stopped = False
        self._refused: Run | None = None  # for others, and not told yet

    def for_others(self) -> Run | None:
        """A run that waits for GPUs which another invocation has; it is told once."""
        with self._changed:
            refused, self._refused = self._refused, None
            return refused

    @property
    def stopped(self) -> bool:
        """Whether all is to end."""
        return self._stopped

    def stop(self) -> None:
        """Let no other run begin."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> tuple[Run, Lease] | None:
        """The first run that there is room for, as soon as there is; None where none waits."""
        with self._changed:
            while self._runs and not self._stopped:
                if not self._has_room(0):
                    self._desk.close()
                elif found := self._lease():
                    self._going += 1
                    return found
                self._changed.wait(LOOK_S)
            self._desk.close()
            return None

    def take_on(self, run: Run, lease: Lease) -> Run | None:
        """The next run for a worker that was started for `run`; None where there is none now."""
        with self._changed:
            if self._stopped or not self._has_room(1) or (lease.gpus and self._desk.wanted):
                return None
            if self._shared:
                place = following(self._runs, [*self._desk.free, *lease.gpus])
                fits = place is not None and self._alike(self._runs[place], run)
                return self._runs.pop(place) if place is not None and fits else None
            found = self.alike(run)  # rather than a container for another lesson
            return self._runs.pop(self._runs.index(found[0])) if found else None

    def leave(self, lease: Lease) -> None:
        """A worker has ended; its GPUs are free."""
        with self._changed:
            lease.close()
            self._going -= 1
            self._changed.notify_all()

    def alike(self, run: Run) -> list[Run]:
        """The waiting runs that a worker for `run` can execute."""
        with self._changed:
            return [other for other in self._runs if self._alike(other, run)]

    def share(self, run: Run) -> float:
        """How many of them it may expect, if all slots take from them."""
        return len(self.alike(run)) / self._slots

    def _lease(self) -> tuple[Run, Lease] | None:
        """Where the first has to wait for others' GPUs, none but one that wants no GPU goes by."""
        waited = self._desk.waits
        for free in (self._desk.free, []):
            place = following(self._runs, free)
            if place is None:
                continue
            if lease := self._desk.lease(self._runs[place].gpus):
                return self._runs.pop(place), lease
            self._refused = self._refused if waited else self._runs[place]
        return None

    def _alike(self, one: Run, other: Run) -> bool:
        kinds = [[gpu.name for gpu in run.gpus] for run in (one, other)]
        same = self._shared or one.lesson.name == other.lesson.name
        return same and kinds[0] == kinds[1] and one.threads == other.threads

    def _has_room(self, own: int) -> bool:
        return self._going <= own or memory.left() >= self._room
