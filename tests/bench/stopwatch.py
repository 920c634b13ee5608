"""Measures a shell script with all its processes: wall time, CPU time and memory."""

import ctypes
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from select import select
from subprocess import DEVNULL, Popen

import psutil

from ci.errors import CourseError

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.25  # between two looks at the memory: a look takes milliseconds per process


@dataclass(frozen=True)
class Sample:
    """One execution of a contender."""

    wall_s: float
    cpu_s: float  # user and system time of all its processes
    peak_mb: float = 0.0  # the largest sum of their proportional set sizes
    run_s: float = 0.0  # wall time per run
    private_mb: float = 0.0  # of a warm kernel, where it was measured


def measure(script: str, folder: Path, env: Mapping[str, str], deadline_s: float) -> Sample:
    """Run a shell script in `folder`.

    Any process that outlives the script, even a daemon in another session, becomes a child of this
    process, is killed and reaped, and its CPU time counts. Raises CourseError if a command fails
    or if the script takes longer than `deadline_s`.
    """
    prctl, others, peak_mb = ctypes.CDLL(None).prctl, _descendants(), 0.0
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    reaped_s, began = sum(getrusage(RUSAGE_CHILDREN)[:2]), time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        shell = Popen(
            ["sh", "-ec", script], cwd=folder, env=env, stdin=DEVNULL, stdout=output, stderr=output
        )
        ended = os.pidfd_open(shell.pid)
        try:
            while not select([ended], [], [], LOOK_S)[0]:
                peak_mb = max(peak_mb, _memory_mb(_descendants(others)))
                if time.monotonic() - began > deadline_s:
                    raise CourseError(f"killed, because it was not done in {deadline_s:g} s")
            wall_s, status = time.monotonic() - began, shell.wait()
        finally:
            os.close(ended)
            while left := _descendants(others):  # the children of a killed process come next
                for process in left:
                    with suppress(psutil.Error):
                        process.kill()
                os.waitpid(-1, 0)
            prctl(PR_SET_CHILD_SUBREAPER, 0)
            shell.poll()  # notices that it has been reaped
        output.seek(0)
        end = " | ".join(output.read().strip().splitlines()[-3:])
    if status:
        raise CourseError(f"ended with status {status}: {end}")
    return Sample(wall_s, sum(getrusage(RUSAGE_CHILDREN)[:2]) - reaped_s, peak_mb)


def _memory_mb(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.Error):  # it has ended
            total += process.memory_full_info().pss  # counts each shared page once
    return total / 1e6


def _descendants(others: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p not in others]
