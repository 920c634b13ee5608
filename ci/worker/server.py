"""Runs beside the lessons and executes one run at a time: `python -P -m ci.worker.server`.

Requests are JSON lines on standard input, events are JSON lines on standard output. The worker is
the subreaper of everything that its runs start: processes that a run leaves behind, even in
sessions of their own, become children of the worker, which kills them. When its standard input
ends, its parent is gone, and it ends with everything that it has started.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import runpy
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TextIO

import psutil

from ci.errors import CourseError
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.worker.forked import ForkServer
from ci.worker.notebook import VARIABLES, Verdict, execute, save

NOTEBOOK, LOG = "executed.ipynb", "log.txt"  # in an attempt
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
CGROUP = Path("/sys/fs/cgroup")  # of a container; file names of version 2 and of version 1:
OOM_KILLS = ("memory.events", "memory/memory.oom_control")
MEMORY_LIMIT = ("memory.max", "memory/memory.limit_in_bytes")
GRACE_S = 30.0  # for an execution to notice that its kernel was killed
KILL_S = 20.0  # for processes to end after SIGKILL; one that is stuck in a driver does not
POLL_S = 1.0


def serve(requests: int, events: TextIO) -> None:
    """Serve requests from the file descriptor `requests`, until it ends."""
    _set_up_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    fork_server = ForkServer()
    try:
        _send(events, event="ready", environment=describe())
        for line in _lines(requests):
            _serve(json.loads(line), requests, events, fork_server)
    finally:
        while kill_descendants():  # they use GPUs, and this process holds the GPUs' locks
            time.sleep(POLL_S)


def describe() -> dict[str, str]:
    """The versions, build and processor that execute the lessons. Does not import torch."""
    facts = {"Python": platform.python_version(), "machine": _processor()}
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        build = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
        facts["torch"] = str(build["__version__"])
        facts["cuda"] = str(build.get("cuda") or "")
    facts["NumPy"] = importlib.metadata.version("numpy")
    return facts


def _serve(
    request: Mapping[str, Any], requests: int, events: TextIO, fork_server: ForkServer
) -> None:
    attempt = Path(request["attempt"])
    with _log_to(attempt / LOG):
        if request["forked"]:
            fork_server.start({**os.environ, **VARIABLES}, Path(request["lesson"]).parent)
        _send(events, event="executing", run=request["run"])
        start = time.monotonic()
        ended = _execute(request, attempt, requests, events, fork_server)
    _send(events, event="ended", run=request["run"], seconds=time.monotonic() - start, **ended)


def _execute(
    request: Mapping[str, Any], attempt: Path, requests: int, events: TextIO, server: ForkServer
) -> dict[str, Any]:
    """Execute in a second thread, so that this one can enforce the deadline."""
    verdicts: list[Verdict] = []
    faults: list[CourseError] = []
    kills = _oom_kills()
    done, report = os.pipe()

    def run() -> None:
        try:
            verdicts.append(
                execute(
                    _read(Path(request["lesson"]), request["digest"]),
                    request["parameters"],
                    variables=request["variables"],
                    on_cell=lambda cell, cells: _send(
                        events, event="cell", run=request["run"], cell=cell, cells=cells
                    ),
                    fork_server=server,
                )
            )
        except CourseError as error:
            faults.append(error)
        finally:
            os.close(report)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready, _, _ = select.select([requests, done], [], [], request["timeout_s"])
    in_time = done in ready
    abandoned = requests in ready and not in_time  # by a parent that is gone
    # After a timeout, nobody knows whether the run or the fork server hangs.
    stuck = kill_descendants(spare=server.pids if in_time else set())
    thread.join(1 if abandoned else GRACE_S)
    if abandoned:
        sys.exit(1)
    os.close(done)
    verdict = verdicts[0] if verdicts else None
    if verdict:
        save(verdict.notebook, attempt / NOTEBOOK)
    end, reason = "completed", _reason(verdict, faults, oom=_oom_kills() > kills)
    if not in_time:
        end, reason = "timed out", f"not done within {request['timeout_s']:g} s"
    elif reason:
        end = "failed"
    if stuck:
        pids = ", ".join(map(str, sorted(stuck)))
        end, reason = "failed", f"SIGKILL does not end its process {pids}: restart the machine"
    return {
        "end": end,
        "reason": reason,
        "cell": verdict.cell if verdict else "",
        "machine_fault": bool(verdict and verdict.machine_fault),
        "saved": bool(verdict),
        "stuck": sorted(stuck),
    }


def _reason(verdict: Verdict | None, faults: list[CourseError], *, oom: bool) -> str:
    """Why an execution failed; empty where it completed."""
    if not verdict:
        return str(faults[0]) if faults else "the execution broke; see its log"
    if verdict.reason and oom:
        limit = _cgroup(MEMORY_LIMIT).strip()
        allowed = f", limit {int(limit) / 2**30:.1f} GiB" if limit.isdecimal() else ""
        return f"out of memory{allowed} ({verdict.reason.partition(';')[0]})"
    return verdict.reason


@functools.lru_cache(maxsize=1)  # the runs of a sweep are of one lesson
def _read(path: Path, digest: str) -> Lesson:
    """The lesson to execute, which must be the text that was read for the plan."""
    lesson = reader.read(path)
    if lesson.digest != digest:
        raise CourseError("the lesson was changed while it waited: run it again")
    return lesson


def kill_descendants(spare: Set[int] = frozenset()) -> set[int]:
    """Kill all descendants of this process, in whichever session; the ids of those still there.

    The processes `spare` may live on, unless a child of theirs does not end because of them.
    """
    deadline = time.monotonic() + KILL_S
    while children := [c for c in psutil.Process().children(recursive=True) if c.pid not in spare]:
        if time.monotonic() > deadline:
            return {child.pid for child in children}
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if psutil.wait_procs(children, timeout=5)[1]:
            spare = frozenset()  # a lesson has stopped it, so it does not reap its children
    return set()


def _oom_kills() -> int:
    """How many processes of this container were killed because it ran out of memory."""
    counts = dict(line.split() for line in _cgroup(OOM_KILLS).splitlines())
    return int(counts.get("oom_kill", 0))


def _cgroup(names: tuple[str, ...]) -> str:
    found = [CGROUP / name for name in names if (CGROUP / name).exists()]
    return found[0].read_text() if found else ""


def _set_up_process() -> None:
    """Adopt orphans, and deny access to the lesson, which runs as the same user."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def _lines(descriptor: int) -> Iterator[str]:
    """The lines of a file descriptor, unbuffered, so that `select` sees the next request."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send the output of this process, and of everything that it starts, to the attempt's log."""
    before = [os.dup(1), os.dup(2)]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(log, 1), os.dup2(log, 2)
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for number, saved in enumerate(before, start=1):
            os.dup2(saved, number)
            os.close(saved)
        os.close(log)


def _send(events: TextIO, **event: Any) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    # Events have standard output for themselves; what a lesson prints there goes to the log.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(0, channel)
