"""Measures commands as one process tree: `python -P -m ci.bench.stopwatch`.

It is the subreaper of all that the commands start. What they leave behind, a daemon in a session of
its own too, comes back here, is ended and reaped, and its processor time counts. The watch is a
process of its own, so that what it has reaped is the commands' alone. What it can't see is the time
of children of a process that ignores SIGCHLD: nobody reaps those.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ci.errors import MachineError

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SAMPLE_S = 0.25  # between two looks at the memory: each takes milliseconds a process
LEAST_PRIORITY = 19  # for them: a core that computes is left alone
MEGA = 1e6


@dataclass(frozen=True)
class Figures:
    """What a process tree has taken.

    `cpu_s` is user and system time of all its processes; `peak_mb` the largest sum of their
    proportional set sizes at a sample; `foreign` the share of the machine that others had
    meanwhile; `status` the exit status of the command that failed; `over` says whether the deadline
    ended it.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    foreign: float
    status: int = 0
    over: bool = False


def measure(
    commands: Sequence[Sequence[str]],
    folder: Path,
    environment: Mapping[str, str],
    *,
    log: Path,
    deadline_s: float,
) -> Figures:
    """Run `commands` in `folder`, one after the other to the first that fails.

    They write to `log`. Raises MachineError where the watch itself is killed, or not on Linux.
    """
    if sys.platform != "linux":
        raise MachineError("bench: needs Linux, to see all of a process tree")
    request = {
        "commands": [list(command) for command in commands],
        "folder": str(folder),
        "environment": dict(environment),
        "log": str(log),
        "deadline_s": deadline_s,
    }
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "ci.bench.stopwatch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours to answer
    ) as watch:
        try:
            answer, _ = watch.communicate(json.dumps(request))
        except BaseException:
            watch.terminate()  # it ends what it watches
            raise
    if watch.returncode:
        raise MachineError(f"bench: the stopwatch ended with status {watch.returncode}")
    return Figures(**json.loads(answer))


class Sampler(threading.Thread):
    """Looks at the memory of this process's descendants. Its own time is not theirs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look, until it is told to stop."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        while not self._ended.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, memory_mb(psutil.Process()))

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()


def memory_mb(process: psutil.Process, kind: str = "pss") -> float:
    """The memory of a process's descendants: `pss`, where each page counts once, or `uss`."""
    total = 0
    for one in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            total += getattr(one.memory_full_info(), kind)
    return total / MEGA


def watch(
    commands: list[list[str]], environment: Mapping[str, str], log: Path, deadline_s: float
) -> Figures:
    """In the watch's own process: run the commands here, and measure."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    sampler, busy, began = Sampler(), _busy_s(), time.monotonic()
    status, over = 0, False
    with log.open("wb") as file:
        signal.signal(signal.SIGALRM, _ring)
        signal.setitimer(signal.ITIMER_REAL, deadline_s)
        try:
            for command in commands:
                # The first starts before the sampler: a child has the priority of its parent.
                pid = _spawn(command, environment, file.fileno())
                if not sampler.is_alive():
                    sampler.start()
                if status := _wait(pid):
                    break
            signal.setitimer(signal.ITIMER_REAL, 0)
        except TimeoutError:
            over = True
        wall_s = time.monotonic() - began
    sampler.stop()
    end_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    elapsed_s = time.monotonic() - began
    foreign = max(0.0, _busy_s() - busy - cpu_s) / (elapsed_s * (psutil.cpu_count() or 1))
    return Figures(wall_s, cpu_s, sampler.peak_mb, foreign, status, over)


def _spawn(command: list[str], environment: Mapping[str, str], log: int) -> int:
    """Start a command with nothing to read, in a session of its own."""
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    told = [(os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2)]
    return os.posix_spawnp(
        command[0], command, environment, file_actions=[nothing, *told], setsid=True
    )


def _wait(pid: int) -> int:
    """Reap whatever ends, until `pid` has; its exit status, minus a signal's number."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def end_all() -> None:
    """End and reap all that is left; what an ended one leaves comes here, and is next."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _ring(*_: object) -> None:
    raise TimeoutError


def _busy_s() -> float:
    """Processor time that the whole machine has spent, by whomever."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def main() -> None:
    """Answer the one request on standard input."""

    def leave(*_: object) -> None:
        end_all()
        os._exit(143)

    signal.signal(signal.SIGTERM, leave)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # where who measures is killed
    request = json.loads(sys.stdin.read())
    os.chdir(request.pop("folder"))
    figures = watch(
        request["commands"], request["environment"], Path(request["log"]), request["deadline_s"]
    )
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
