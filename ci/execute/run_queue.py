"""The runs that have not started: which slot takes which run, when, and on which GPUs."""

import threading
from collections.abc import Sequence

from ci.execute.leases import GpuPool, Lease
from ci.plan import memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.plan.schedule import first_fitting, pick

POLL_S = 0.2  # between two looks for GPUs and memory that other processes hold


class RunQueue:
    """Runs in the order in which they should start. Any thread may call any method."""

    def __init__(
        self, runs: Sequence[Run], gpus: Sequence[Gpu], headroom: int, *, slots: int, shared: bool
    ) -> None:
        """With a `shared` executor, a worker can serve several lessons.

        While fewer than `headroom` bytes of memory are left, no run starts beside another.
        """
        if unmet := [run for run in runs if pick(run.gpus, gpus) is None]:
            raise ValueError(f"{unmet[0].name}: needs GPUs that are not among those to lease")
        self._runs, self._pool, self._headroom = list(runs), GpuPool(gpus), headroom
        self._slots, self._shared = slots, shared
        self._changed = threading.Condition()
        self._running = 0
        self._stopped = False
        self._blocked: Run | None = None  # by other invocations, and not reported yet

    def newly_blocked(self) -> Run | None:
        """A run that waits for GPUs of another invocation; each wait is returned once."""
        with self._changed:
            blocked, self._blocked = self._blocked, None
            return blocked

    @property
    def stopped(self) -> bool:
        """Whether everything should end."""
        return self._stopped

    def stop(self) -> None:
        """Let no further run start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> tuple[Run, Lease] | None:
        """Wait for the first run that fits; the run and its lease, or None when none is left."""
        with self._changed:
            while self._runs and not self._stopped:
                if not self._has_memory(0):
                    self._pool.stop_waiting()
                elif found := self._lease():
                    self._running += 1
                    return found
                self._changed.wait(POLL_S)
            self._pool.stop_waiting()
            return None

    def next_compatible(self, run: Run, lease: Lease) -> Run | None:
        """The next run for a worker that was started for `run`; None where there is none now."""
        with self._changed:
            if self._stopped or not self._has_memory(1) or (lease.gpus and self._pool.wanted):
                return None
            if self._shared:
                index = first_fitting(self._runs, [*self._pool.free, *lease.gpus])
                if index is None or not self._is_compatible(self._runs[index], run):
                    return None
                return self._runs.pop(index)
            found = self.compatible(run)  # rather than a container for another lesson
            return self._runs.pop(self._runs.index(found[0])) if found else None

    def release(self, lease: Lease, *, withhold: bool = False) -> None:
        """A worker has ended: return its GPUs, or `withhold` them if a process still uses them."""
        with self._changed:
            if not withhold:
                lease.close()
            self._running -= 1
            self._changed.notify_all()

    def compatible(self, run: Run) -> list[Run]:
        """The waiting runs that a worker for `run` can execute."""
        with self._changed:
            return [other for other in self._runs if self._is_compatible(other, run)]

    def share(self, run: Run) -> float:
        """How many of them each slot can expect."""
        return len(self.compatible(run)) / self._slots

    def _lease(self) -> tuple[Run, Lease] | None:
        """While the first run waits for other invocations, only runs without GPUs overtake it."""
        waited = self._pool.waits
        for free in (self._pool.free, []):
            index = first_fitting(self._runs, free)
            if index is None:
                continue
            if lease := self._pool.lease(self._runs[index].gpus):
                return self._runs.pop(index), lease
            self._blocked = self._blocked if waited else self._runs[index]
        return None

    def _is_compatible(self, one: Run, other: Run) -> bool:
        models = [[gpu.name for gpu in run.gpus] for run in (one, other)]
        same_place = self._shared or one.lesson.name == other.lesson.name
        return same_place and models[0] == models[1] and one.threads == other.threads

    def _has_memory(self, own_runs: int) -> bool:
        return self._running <= own_runs or memory.available() >= self._headroom
