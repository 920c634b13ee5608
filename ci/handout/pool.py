"""Handouts made in other processes, while other lessons are still being executed."""

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ci.atomic import private_folder
from ci.errors import MachineError
from ci.handout.handout import EDITIONS, Edition, Handout, Note, provenance
from ci.judge.outcome import Outcome

NICENESS = 10  # lessons measure time, so their execution goes first

Key = tuple[int, str, Edition]


class HandoutPool:
    """Makes the handouts of each outcome as soon as it is submitted.

    A context manager: when it ends, its processes end, and all files that were not copied go.
    """

    def __init__(self) -> None:
        self._files = contextlib.ExitStack()
        self._folder = self._files.enter_context(private_folder())
        self._outcomes: list[Outcome] = []  # kept, so that no two have the same id
        self._jobs: dict[Key, tuple[Path, list[Future[None]]]] = {}

    def __enter__(self) -> "HandoutPool":
        return self

    def __exit__(self, *_: object) -> None:
        if "_processes" in vars(self):
            self._processes.shutdown(cancel_futures=True)
        self._files.close()

    @functools.cached_property
    def _processes(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(mp_context=context, initializer=_set_up_process)

    def submit(
        self, outcome: Outcome, notes: Sequence[Note], editions: Sequence[Edition] = EDITIONS
    ) -> None:
        """Start making the handouts of `outcome` in `editions`, unless they were submitted before.

        A failure is raised by `copy_to`, so that the other runs are still executed.
        """
        with contextlib.suppress(BrokenProcessPool):
            self._submit(outcome, notes, editions)

    def _submit(self, outcome: Outcome, notes: Sequence[Note], editions: Sequence[Edition]) -> None:
        if _key(outcome, notes, editions[0]) in self._jobs:
            return
        folder = self._folder / str(len(self._outcomes))
        self._outcomes.append(outcome)
        known = provenance(outcome)
        handouts = [Handout(outcome, known, notes, edition) for edition in editions]
        jobs = [  # the editions of one language have nearly all of their prose in common
            self._processes.submit(_write, handouts, language, folder)
            for language in outcome.run.lesson.languages
        ]
        for edition in editions:
            self._jobs[_key(outcome, notes, edition)] = folder / edition.folder, jobs

    def copy_to(
        self, target: Path, outcome: Outcome, notes: Sequence[Note], edition: Edition
    ) -> None:
        """Copy the handouts of `outcome` into the folder `target` when they are complete.

        Raises CourseError for content that can't be set, MachineError if a process was killed.
        """
        try:
            self._submit(outcome, notes, [edition])
            folder, jobs = self._jobs[_key(outcome, notes, edition)]
            for job in jobs:
                job.result()
        except BrokenProcessPool as error:
            if error.__cause__:  # no process was killed: an exception could not be unpickled
                raise
            raise MachineError(
                f"handouts of {outcome.run.name}: a process that makes them was killed; perhaps "
                "the machine was out of memory"
            ) from None
        shutil.copytree(folder, target, dirs_exist_ok=True)


def _key(outcome: Outcome, notes: Sequence[Note], edition: Edition) -> Key:
    return id(outcome), json.dumps([dict(note) for note in notes]), edition


def _write(handouts: Sequence[Handout], language: str, folder: Path) -> None:
    from ci.handout import exporters  # slow to import, and needed only in the other processes

    for handout in handouts:
        exporters.write(handout, folder / handout.edition.folder, [language])


def _set_up_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also goes to the parent, which ends us
    os.nice(NICENESS)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this process when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
