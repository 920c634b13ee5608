"""Beside the lesson: executes one run at a time. `python -m ci.worker.server`.

A request is a JSON line in, events are JSON lines out. It is the subreaper of what its runs start:
whatever a run leaves behind, in a session of its own too, comes back to the worker and is ended.
When its standard input ends, its parent is gone, and it ends with all that it started.
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
from ci.lesson.reader import Lesson
from ci.worker.forked import Nursery
from ci.worker.notebook import BACKEND, Verdict, execute, save

EXECUTED, LOG = "executed.ipynb", "log.txt"
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
CGROUP = Path("/sys/fs/cgroup")  # of the container; files of version 2 and of version 1:
OOM_KILLS = ("memory.events", "memory/memory.oom_control")
MEMORY_LIMIT = ("memory.max", "memory/memory.limit_in_bytes")
GRACE_S = 30.0  # for an execution to notice that its kernel was ended


def serve(requests: int, events: TextIO) -> None:
    """Serve requests from the file descriptor `requests`, until it ends."""
    _set_up_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which then ends us
    nursery = Nursery()
    try:
        _send(events, event="ready", environment=describe())
        for line in _lines(requests):
            _serve(json.loads(line), requests, events, nursery)
    finally:
        end_descendants()


def describe() -> dict[str, str]:
    """What runs the lessons here: versions, build and processor. Does not import torch."""
    facts = {"Python": platform.python_version(), "machine": _processor()}
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        build = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
        facts["torch"] = str(build["__version__"])
        facts["cuda"] = str(build.get("cuda") or "")
    facts["NumPy"] = importlib.metadata.version("numpy")
    return facts


def _serve(request: Mapping[str, Any], requests: int, events: TextIO, nursery: Nursery) -> None:
    output = Path(request["output"])
    with _log_to(output / LOG):
        if request["warm"]:
            nursery.start({**os.environ, **BACKEND}, Path(request["lesson"]).parent)
        started = time.monotonic()
        ended = _execute(request, output, requests, events, nursery)
    _send(events, event="ended", run=request["run"], seconds=time.monotonic() - started, **ended)


def _execute(
    request: Mapping[str, Any], output: Path, requests: int, events: TextIO, nursery: Nursery
) -> dict[str, Any]:
    """Execute in a thread of its own, so that this one can keep the deadline."""
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
                    environment=request["environment"],
                    on_cell=lambda cell, cells: _send(
                        events, event="cell", run=request["run"], cell=cell, cells=cells
                    ),
                    nursery=nursery,
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
    # Out of time, we can't tell whether the run or the nursery hangs.
    end_descendants(spare=nursery.pids if in_time else set())
    thread.join(1 if abandoned else GRACE_S)
    if abandoned:
        sys.exit(1)
    os.close(done)
    cell = verdicts[0].cell if verdicts else ""
    if verdicts:
        save(verdicts[0].notebook, output / EXECUTED)
    ended = {"saved": bool(verdicts), "cell": cell}
    if not in_time:
        reason = f"not done within {request['timeout_s']:g} s"
        return {**ended, "status": "timed out", "reason": reason}
    if not verdicts:
        reason = str(faults[0]) if faults else "the execution broke; its log says how"
        return {**ended, "status": "failed", "reason": reason}
    reason = verdicts[0].reason
    if reason and _oom_kills() > kills:
        limit = _cgroup(MEMORY_LIMIT).strip()
        most = f", of which it may take {int(limit) / 2**30:.1f} GiB" if limit.isdecimal() else ""
        reason = f"out of memory{most} ({reason.partition(';')[0]})"
    return {**ended, "status": "failed" if reason else "completed", "reason": reason}


@functools.lru_cache(maxsize=1)  # the runs of a sweep are of one lesson
def _read(path: Path, digest: str) -> Lesson:
    """The lesson that is to be run: the text that was read when the run was planned."""
    lesson = reader.read(path)
    if lesson.digest != digest:
        raise CourseError("the lesson was changed while it waited: run it again")
    return lesson


def end_descendants(spare: Set[int] = frozenset()) -> None:
    """End all that this process started, and all that those started, however they hid.

    `spare` are process ids that may go on, unless their own children do not end by that.
    """
    while children := [c for c in psutil.Process().children(recursive=True) if c.pid not in spare]:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if psutil.wait_procs(children, timeout=5)[1]:
            spare = frozenset()  # a lesson has stopped it: its dead children wait for it


def _oom_kills() -> int:
    """How many processes of this container the system has ended for want of memory."""
    counts = dict(line.split() for line in _cgroup(OOM_KILLS).splitlines())
    return int(counts.get("oom_kill", 0))


def _cgroup(names: tuple[str, ...]) -> str:
    found = [CGROUP / name for name in names if (CGROUP / name).exists()]
    return found[0].read_text() if found else ""


def _set_up_process() -> None:
    """Inherit orphans; and be closed to the lesson, which has the same user, but for its kernel."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def _lines(descriptor: int) -> Iterator[str]:
    """The lines of a file descriptor, unbuffered, so that `select` sees what is waiting."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in whole)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send this process's output, and that of all it starts, to the attempt's log."""
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
