"""Measures what a shell script and all its processes take: wall time, CPU time and memory."""

import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread, get_native_id
from typing import IO

import psutil

from ci.errors import CourseError

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.25  # between two looks at the memory: a look takes milliseconds per process
Processes = Sequence[psutil.Process]


@dataclass(frozen=True)
class Sample:
    """One execution of a contender."""

    wall_s: float
    cpu_s: float  # user and system time of all its processes
    peak_mb: float = 0.0  # the largest sum of their proportional set sizes
    foreign: float = 0.0  # the share of the machine that other processes used
    timed_out: bool = False
    run_s: float = 0.0  # wall time per run
    private_mb: float = 0.0  # of a warm kernel, where it was measured


def measure(script: str, folder: Path, environment: Mapping[str, str], deadline_s: float) -> Sample:
    """Run a shell script in `folder`, and kill it after `deadline_s`.

    What the script leaves behind, even a daemon in another session, becomes a child of this
    process, is killed and reaped, and its CPU time counts. Only the children of a process that
    ignores SIGCHLD stay invisible, because nobody reaps them. Raises CourseError, with the end of
    the output, if a command fails.
    """
    prctl, others, ended, peaks_mb = ctypes.CDLL(None).prctl, _descendants(), Event(), [0.0]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    psutil.cpu_percent()  # the next call counts from here
    reaped_s, began = _reaped_s(), time.monotonic()
    watcher = Thread(target=_watch, args=(others, began + deadline_s, peaks_mb, ended))
    watcher.start()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            status = _run(script, folder, environment, output)
            wall_s = time.monotonic() - began
        finally:
            ended.set()
            watcher.join()
            while _kill_descendants(others):  # the children of a killed process come next
                os.waitpid(-1, 0)
            prctl(PR_SET_CHILD_SUBREAPER, 0)
        output.seek(0)
        end = " | ".join(output.read().strip().splitlines()[-3:])
    timed_out = status == -signal.SIGKILL and wall_s > deadline_s
    if status and not timed_out:
        raise CourseError(f"ended with status {status}: {end}")
    cpu_s, cores = _reaped_s() - reaped_s, psutil.cpu_count() or 1
    foreign = psutil.cpu_percent() / 100 - cpu_s / cores / (time.monotonic() - began)
    return Sample(wall_s, cpu_s, max(peaks_mb), max(0.0, foreign), timed_out)


def _run(script: str, folder: Path, environment: Mapping[str, str], output: IO[str]) -> int:
    shell = subprocess.Popen(
        ["sh", "-ec", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C interrupts this process alone
    )
    while (ended := os.waitpid(-1, 0))[0] != shell.pid:
        continue  # an orphan, which init would reap
    shell.returncode = os.waitstatus_to_exitcode(ended[1])
    return shell.returncode


def _watch(others: Processes, deadline: float, peaks_mb: list[float], ended: Event) -> None:
    os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)  # the lowest, for this thread alone
    while not ended.wait(LOOK_S):
        total = 0
        for process in _descendants(others):
            with suppress(psutil.Error):  # it has ended
                total += process.memory_full_info().pss  # counts each shared page once
        peaks_mb.append(total / 1e6)
        if time.monotonic() > deadline:
            _kill_descendants(others)


def _kill_descendants(others: Processes) -> Processes:
    processes = _descendants(others)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    return processes


def _descendants(others: Processes = ()) -> Processes:
    return [p for p in psutil.Process().children(recursive=True) if p not in others]


def _reaped_s() -> float:
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
