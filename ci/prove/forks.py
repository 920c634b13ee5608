"""Forks of this process: each tries one mutant, and is killed at its deadline."""

import contextlib
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import cast

from ci.errors import CourseError
from ci.worker import processes

_context = multiprocessing.get_context("fork")


class MutantStatus(StrEnum):
    """What became of a mutant: the first three say how it was noticed."""

    DIFFERS = "differs"
    ERROR = "error"
    TIMED_OUT = "timed out"
    EQUIVALENT = "equivalent"
    SURVIVED = "survived"


@dataclass(frozen=True)
class Verdict:
    """The status of a mutant, and its reason: the check or the error that noticed it."""

    status: MutantStatus
    reason: str = ""


Trial = Callable[[], Verdict]


def run_in_forks(
    trials: Iterable[tuple[int, Trial]], *, jobs: int, deadline_s: float
) -> Iterator[tuple[int, Verdict]]:
    """Call each trial in a fork of its own, at most `jobs` at once; yield the verdicts by number.

    The fork is of this process as it is when `trials` yields the trial, which may change it between
    two of them while others run. A trial that takes longer than `deadline_s` is killed.
    """
    waiting, running = iter(trials), list[_Fork]()
    while True:
        for number, trial in islice(waiting, jobs - len(running)):
            gc.freeze()  # or a collection in the fork copies all of its memory
            running.append(_Fork(number, trial, deadline_s))
        if not running:
            return
        first_deadline = min(fork.deadline for fork in running)
        wait([fork.sentinel for fork in running], max(0, first_deadline - time.monotonic()))
        for fork in list(running):
            if verdict := fork.verdict():
                running.remove(fork)
                yield fork.number, verdict


class _Fork:
    def __init__(self, number: int, trial: Trial, deadline_s: float) -> None:
        self.number, self.deadline = number, time.monotonic() + deadline_s
        self._receiver, sender = _context.Pipe(duplex=False)
        arguments = (trial, sender, os.getpid())
        self._process = _context.Process(target=_send_verdict, args=arguments)
        self._process.start()
        self.sentinel = self._process.sentinel  # ready when the process has ended
        sender.close()

    def verdict(self) -> Verdict | None:
        """The verdict of a fork that has ended or is late; None while it runs."""
        late = time.monotonic() >= self.deadline
        if self._process.is_alive() and not late:
            return None
        self._process.kill()
        self._process.join()
        with self._receiver, contextlib.suppress(EOFError):
            if self._receiver.poll():
                return cast(Verdict, self._receiver.recv())
        if late or self._process.exitcode == -signal.SIGALRM:  # the deadline of a part of the trial
            return Verdict(MutantStatus.TIMED_OUT)
        return Verdict(MutantStatus.ERROR, f"its process ended with {self._process.exitcode}")


def _send_verdict(trial: Trial, sender: Connection, parent: int) -> None:
    processes.end_with(parent)
    try:
        verdict = trial()
    except CourseError as error:  # the mistake was found when the course was read
        verdict = Verdict(MutantStatus.ERROR, str(error))
    except Exception as error:  # a fault of the pipeline, which says nothing about the checks
        reason = f"the pipeline failed: {type(error).__name__}: {error}"
        verdict = Verdict(MutantStatus.SURVIVED, reason)
    sender.send(verdict)
