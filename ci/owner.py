"""Whose something is: the process that made it, so that what a dead one left can be swept."""

import contextlib
import os
from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")


def this() -> str:
    """This process: boot, process id, and when it started, since ids are given out again."""
    boot = BOOT.read_text().strip()
    return f"{boot} {os.getpid()} {psutil.Process().create_time()}"


def lives(owner: str) -> bool:
    """Whether the process of this name is still there."""
    boot, pid, started = owner.split()
    if boot != BOOT.read_text().strip() or not psutil.pid_exists(int(pid)):
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        # About: it is reckoned from the clock, which may have been set since.
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 10
    return False
