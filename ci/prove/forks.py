"""Forks of this process: each tries one mutant, and is killed at its deadline."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import cast

from ci.errors import CourseError

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
    trials: Mapping[int, Trial], *, jobs: int, deadline_s: float
) -> Iterator[tuple[int, Verdict]]:
    """Call each trial in a fork of its own, at most `jobs` at once; yield the verdicts by number.

    A trial that takes longer than `deadline_s` is killed.
    """
    waiting, running = list(trials.items()), list[_Fork]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_Fork(*waiting.pop(0), deadline_s))
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
        self._process = _context.Process(target=_send_verdict, args=(trial, sender))
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
        if late:
            return Verdict(MutantStatus.TIMED_OUT)
        return Verdict(MutantStatus.ERROR, f"its process ended with {self._process.exitcode}")


def _send_verdict(trial: Trial, sender: Connection) -> None:
    try:
        verdict = trial()
    except CourseError as error:  # the mistake was found when the course was read
        verdict = Verdict(MutantStatus.ERROR, str(error))
    except Exception as error:  # a fault of the pipeline, which says nothing about the checks
        reason = f"the pipeline failed: {type(error).__name__}: {error}"
        verdict = Verdict(MutantStatus.SURVIVED, reason)
    sender.send(verdict)
