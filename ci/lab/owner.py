"""Who made a container: a process, named so that a later process never gets the same name."""

import contextlib
import os
from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")  # process ids are unique only within a namespace
CLOCK_ERROR_S = 10  # start times are computed from the clock, which may have been set since


def current_process() -> str:
    """Return the name of this process: boot, PID namespace, user, process id and start time.

    The start time is part of the name because the system reuses process ids.
    """
    started = psutil.Process().create_time()
    return f"{_boot()} {PID_NAMESPACE.readlink()} {os.getuid()} {os.getpid()} {started}"


def has_exited(owner: str) -> bool:
    """Return whether the process of this name has certainly exited.

    False also where it cannot be known: processes in another container are invisible, and those of
    other users may be.
    """
    words = owner.split()
    if len(words) != len(current_process().split()):
        return False  # written by another version of this course
    boot, namespace, user, pid, started = words
    if boot != _boot():
        return True
    if namespace != str(PID_NAMESPACE.readlink()) or os.getuid() not in (0, int(user)):
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > CLOCK_ERROR_S
    return True


def _boot() -> str:
    return BOOT.read_text().strip()
