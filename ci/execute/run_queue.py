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
        self,
        runs: Sequence[Run],
        gpus: Sequence[Gpu],
        headroom: int,
        *,
        is_scheduled: bool = False,
    ) -> None:
        """While fewer than `headroom` bytes of memory are left, no run starts beside another.

        If a scheduler leases the GPUs, leases are only what it is asked for.
        """
        self._is_scheduled = is_scheduled
        self._retried = set[int]()
        if not is_scheduled and (unmet := [run for run in runs if pick(run.gpus, gpus) is None]):
            raise ValueError(f"{unmet[0].name}: needs GPUs that are not among those to lease")
        self._runs, self._pool, self._headroom = list(runs), GpuPool(gpus), headroom
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

    def next_like(self, run: Run, lease: Lease) -> Run | None:
        """A run that can follow `run` on the same server and lease; None where there is none now.

        It may overtake others, since they would need a server of their own.
        """
        with self._changed:
            if self._stopped or not self._has_memory(1) or (lease.gpus and self._pool.wanted):
                return None
            found = next(iter(self.like(run)), None)
            self._runs = [other for other in self._runs if other is not found]
            return found

    def put_back(self, run: Run) -> None:
        """Let any slot take a run that was taken and has not started."""
        with self._changed:
            self._runs.insert(0, run)
            self._changed.notify_all()

    def again(self, run: Run) -> bool:
        """Put a run back that was lost without its fault; False if that has happened before."""
        with self._changed:
            if id(run) in self._retried or self._stopped:
                return False
            self._retried.add(id(run))
            self.put_back(run)
            return True

    def release(self, lease: Lease, *, withhold: bool = False) -> None:
        """A run has ended: return its GPUs, or `withhold` them if a process still uses them."""
        with self._changed:
            if not withhold:
                lease.close()
            self._running -= 1
            self._changed.notify_all()

    def like(self, run: Run) -> list[Run]:
        """The waiting runs that the server of `run` can serve."""
        wanted = self._place(run)
        with self._changed:
            return [other for other in self._runs if self._place(other) == wanted]

    def has_like(self, run: Run) -> bool:
        """Whether a waiting run could use the server of `run`, and may."""
        return not self._stopped and bool(self.like(run))

    def _lease(self) -> tuple[Run, Lease] | None:
        """While the first run waits for other invocations, only runs without GPUs overtake it."""
        if self._is_scheduled:
            run = self._runs.pop(0)
            return run, Lease(run.gpus)
        waited = self._pool.waits
        for free in (self._pool.free, []):
            index = first_fitting(self._runs, free)
            if index is None:
                continue
            if lease := self._pool.lease(self._runs[index].gpus):
                return self._runs.pop(index), lease
            self._blocked = self._blocked if waited else self._runs[index]
        return None

    def _has_memory(self, own_runs: int) -> bool:
        return self._running <= own_runs or memory.available() >= self._headroom

    def _place(self, run: Run) -> tuple[object, ...]:
        """What the runs of a server have in common."""
        needs = run.parameters.get("world_size") if self._is_scheduled else run.lesson.name
        return needs, run.threads, [gpu.name for gpu in run.gpus]
