"""The process of one run: executes a lesson in a kernel, and ends everything that it starts.

Forked by `ci.worker.server`, or `python -P -m ci.worker.run_process DESCRIPTOR…` where forks could
differ. It inherits a pipe for its events and the leases of the run's GPUs, so that they are held
until everything that used them is gone.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ci.errors import CourseError
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.worker import processes
from ci.worker.executed import save
from ci.worker.forked import ForkedKernel
from ci.worker.notebook import Verdict, execute

NOTEBOOK, LOG = "executed.ipynb", "log.txt"  # in an attempt
CGROUP = Path("/sys/fs/cgroup")  # of a container; file names of version 2 and of version 1:
OOM_KILLS = ("memory.events", "memory/memory.oom_control")
MEMORY_LIMIT = ("memory.max", "memory/memory.limit_in_bytes")
GRACE_S = 30.0  # for the execution to end after its kernel was killed
POLL_S = 1.0


def main(request: Mapping[str, Any], inherited: Sequence[int], *, forked: bool) -> NoReturn:
    """Execute the run of a request. `inherited` are the pipe for its events and its leases."""
    parent = os.getppid()
    _write_log(Path(request["attempt"]) / LOG)
    os.chdir(Path(request["lesson"]).parent)
    processes.adopt_orphans()
    processes.end_with(parent, _leave_nothing)
    kernel = ForkedKernel(inherited) if forked else None
    RunProcess(request, inherited[0]).execute(kernel)
    _leave_nothing()


def _leave_nothing() -> NoReturn:
    """End, but not before everything that the run has started: it may use the leased GPUs.

    The next run may have begun beside it.
    """
    while processes.kill_descendants():
        time.sleep(POLL_S)
    os._exit(0)


class RunProcess:
    """Executes a run and tells what happens."""

    def __init__(self, request: Mapping[str, Any], events: int) -> None:
        self._request, self._events = request, events
        self._timed_out = False
        self._oom_kills = _oom_kills()
        self._start = time.monotonic()

    def execute(self, kernel: ForkedKernel | None) -> None:
        """Execute the lesson up to its deadline, in a forked kernel if there is one."""
        self._send("executing", pid=os.getpid())
        signal.signal(signal.SIGALRM, lambda *_: self._on_deadline())
        signal.setitimer(signal.ITIMER_REAL, self._request["timeout_s"])
        try:
            verdict = execute(
                self._read(),
                self._request["parameters"],
                variables=self._request["variables"],
                on_cell=lambda cell, cells: self._send("cell", cell=cell, cells=cells),
                kernel=kernel,
            )
        except CourseError as error:
            self._end(None, str(error))
        else:
            self._end(verdict, self._reason(verdict))

    def _read(self) -> Lesson:
        """The lesson, which must be the text that was read for the plan."""
        lesson = reader.read(Path(self._request["lesson"]), alone=True)
        if lesson.digest != self._request["digest"]:
            raise CourseError("the lesson was changed while it waited: run it again")
        return lesson

    def _on_deadline(self) -> None:
        """End the kernel; if that does not end the execution, end this process."""
        if self._timed_out:
            self._end(None, "")
            _leave_nothing()
        self._timed_out = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        processes.kill_descendants(alone=True)

    def _end(self, verdict: Verdict | None, reason: str) -> None:
        """Save the notebook, kill what is left, and tell how the run ended."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.monotonic() - self._start
        stuck = sorted(processes.kill_descendants(alone=True))
        processes.empty_container()
        if verdict:
            save(verdict.notebook, Path(self._request["attempt"]) / NOTEBOOK)
        end = "failed" if reason else "completed"
        if self._timed_out:
            end, reason = "timed out", f"not done within {self._request['timeout_s']:g} s"
        if stuck:
            pids = ", ".join(map(str, stuck))
            end, reason = "failed", f"SIGKILL does not end its process {pids}: restart the machine"
        self._send(
            "ended",
            end=end,
            reason=reason,
            cell=verdict.cell if verdict else "",
            machine_fault=bool(verdict and verdict.machine_fault),
            saved=bool(verdict),
            seconds=seconds,
            stuck=stuck,
        )

    def _reason(self, verdict: Verdict) -> str:
        """Why an execution failed; empty where it completed."""
        if verdict.reason and _oom_kills() > self._oom_kills:
            limit = _cgroup(MEMORY_LIMIT).strip()
            allowed = f", limit {int(limit) / 2**30:.1f} GiB" if limit.isdecimal() else ""
            return f"out of memory{allowed} ({verdict.reason.partition(';')[0]})"
        return verdict.reason

    def _send(self, event: str, **details: Any) -> None:
        line = json.dumps({"event": event, "run": self._request["run"], **details}).encode() + b"\n"
        while line:
            line = line[os.write(self._events, line) :]


def _oom_kills() -> int:
    """How many processes of this container were killed because it ran out of memory."""
    counts = dict(line.split() for line in _cgroup(OOM_KILLS).splitlines())
    return int(counts.get("oom_kill", 0))


def _cgroup(names: tuple[str, ...]) -> str:
    found = [CGROUP / name for name in names if (CGROUP / name).exists()]
    return found[0].read_text() if found else ""


def _write_log(path: Path) -> None:
    """Send the output of this process, and of everything that it starts, to the attempt's log."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1), os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    main(json.load(sys.stdin), [*map(int, sys.argv[1:])], forked=False)
