"""The processes of a run: with whom they end, and how everything that it has left is ended."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Set
from pathlib import Path

import psutil

from ci.machine import atomic

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PRIVATE = "PYTORCH_COURSE_PRIVATE"  # variable of the lab: folders of one run, as in PATH
KILL_S = 20.0  # for the next process to end after SIGKILL; one that is stuck in a driver does not


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs, even in sessions of their own.

    Lessons run as the same user; from now on, they can read nothing of this process in /proc.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_DUMPABLE, 0)


def be_readable() -> None:
    """Undo in a fork that its parent cannot be read."""
    _prctl(PR_SET_DUMPABLE, 1)


def end_with(parent: int, end: Callable[[], None] | None = None) -> None:
    """Call `end` as soon as the process `parent` is gone, or be killed then."""
    if end:
        signal.signal(signal.SIGUSR1, lambda *_: end())
    _prctl(PR_SET_PDEATHSIG, signal.SIGUSR1 if end else signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGUSR1 if end else signal.SIGKILL)


def kill_descendants(spare: Set[int] = frozenset(), *, alone: bool = False) -> set[int]:
    """Kill all descendants of this process, in whichever session; the ids of those still there.

    The children `spare` and their descendants live on. `alone` says that a container of the lab
    executes no other run now.
    """
    if alone and _sees_only_its_run():
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # in one step, since a fork bomb leaves no time for a list
    fewest, deadline = sys.maxsize, 0.0
    while found := _descendants(spare):
        if len(found) < fewest:  # hundreds take long to end on a busy machine
            fewest, deadline = len(found), time.monotonic() + KILL_S
        if time.monotonic() > deadline:
            return {process.pid for process in found}
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)
    return set()


def empty_container() -> None:
    """Remove the files and System V's objects of a run, which the next run would see.

    Only in a container of the lab.
    """
    if not _sees_only_its_run():
        return
    for folder in os.environ[PRIVATE].split(os.pathsep):
        for left in Path(folder).iterdir():
            atomic.remove(left)
    libc = ctypes.CDLL(None)
    for kind, control in (("shm", libc.shmctl), ("msg", libc.msgctl), ("sem", libc.semctl)):
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]:
            control(int(line.split()[1]), 0, 0)  # 0 is IPC_RMID


def _sees_only_its_run() -> bool:
    """Whether there are only processes of this run, and the first one, which they cannot kill.

    So it is in a container of the lab, whose first process is the fork server.
    """
    if not os.environ.get(PRIVATE) or 1 not in (os.getpid(), os.getppid()):
        return False
    return b"ci.worker.server" in Path("/proc/1/cmdline").read_bytes()  # not a machine's own init


def _descendants(spare: Set[int]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        if child.pid not in spare:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [child, *child.children(recursive=True)]
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)
