"""Forks of this process, several at once, each with a deadline: in each, one attempt is made."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from ci.errors import CourseError

_fork = multiprocessing.get_context("fork")

Verdict = dict[str, str]  # status: survived, differs, error, timed out; by: which check or error


class Pool:
    """Forked children, `jobs` at once, each with a deadline; their verdicts are sent."""

    def __init__(self, jobs: int, send: Callable[..., None]) -> None:
        self._jobs, self._send = jobs, send
        self._running: list[_Child] = []

    def start(self, number: int, deadline_s: float, attempt: Callable[[], Verdict]) -> None:
        """Fork, once there is room, and make the attempt in the child."""
        while len(self._running) >= self._jobs:
            self._reap()
        self._running.append(_Child(number, deadline_s, attempt))

    def finish(self) -> None:
        """Wait for all."""
        while self._running:
            self._reap()

    def _reap(self) -> None:
        first = min(child.deadline for child in self._running)
        wait([c.process.sentinel for c in self._running], max(0.0, first - time.monotonic()))
        for child in list(self._running):
            if verdict := child.verdict():
                self._running.remove(child)
                self._send(number=child.number, **verdict)


class _Child:
    """A fork of this process, and the pipe by which its verdict comes."""

    def __init__(self, number: int, deadline_s: float, attempt: Callable[[], Verdict]) -> None:
        self.number, self.deadline = number, time.monotonic() + deadline_s
        self._verdict, end = _fork.Pipe(duplex=False)
        self.process = _fork.Process(target=_attempt, args=(attempt, end))
        self.process.start()
        end.close()

    def verdict(self) -> Verdict | None:
        """What became of it; None while it goes on."""
        late = time.monotonic() >= self.deadline
        if self.process.is_alive() and not late:
            return None
        self.process.kill()
        self.process.join()
        with self._verdict as verdict, contextlib.suppress(EOFError):
            if verdict.poll():
                return dict(verdict.recv())
        if late:
            return {"status": "timed out", "by": ""}
        return {"status": "error", "by": f"its process ended with {self.process.exitcode}"}


def _attempt(attempt: Callable[[], Verdict], end: Connection) -> None:
    """In the child: make the attempt, and send what came of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1), os.dup2(nowhere, 2)
    server: Any = multiprocessing.forkserver._forkserver
    if server._forkserver_pid:  # it is our parent's child, so multiprocessing would start another
        server.ensure_running = lambda: None
    try:
        end.send(attempt())
    except CourseError as error:  # the mistake was found when the course was read
        end.send({"status": "error", "by": str(error)})
    except Exception as error:  # not a verdict: the pipeline itself broke
        end.send(
            {"status": "survived", "by": f"the pipeline broke: {type(error).__name__}: {error}"}
        )
