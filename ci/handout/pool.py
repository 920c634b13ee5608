"""Handouts set beside the execution of other lessons, in processes that keep their exporters."""

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ci.errors import MachineError
from ci.handout import provenance
from ci.handout.editions import EDITIONS, Edition
from ci.handout.manifest import Note
from ci.judge.outcome import Outcome
from ci.lesson.lesson import LANGUAGES

NICENESS = 10  # what is executed goes first: lessons measure time


class HandoutPool:
    """Sets the handouts of outcomes as they come; a context, after which they are gone."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"pytorch-course-{os.getpid()}-")
        self._outcomes: list[Outcome] = []  # kept, so that each has an id of its own
        self._set: dict[tuple[int, str, Edition], tuple[Path, list[Future[None]]]] = {}

    def __enter__(self) -> "HandoutPool":
        return self

    def __exit__(self, *_: object) -> None:
        if "_pool" in vars(self):
            self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    @functools.cached_property
    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(mp_context=context, initializer=_set_up_process)

    def submit(
        self, outcome: Outcome, notes: Sequence[Note], editions: Sequence[Edition] = EDITIONS
    ) -> None:
        """Begin to set the handouts of `outcome` in `editions`, unless that has begun."""
        with contextlib.suppress(BrokenProcessPool):  # which `lay` tells, after all is executed
            self._submit(outcome, notes, editions)

    def _submit(self, outcome: Outcome, notes: Sequence[Note], editions: Sequence[Edition]) -> None:
        keys = [_key(outcome, notes, edition) for edition in editions]
        if keys[0] in self._set:
            return
        folder = Path(self._folder.name, str(len(self._outcomes)))
        self._outcomes.append(outcome)
        about = provenance.provenance(outcome)
        jobs = [  # editions of one language share most of their work
            self._pool.submit(_set, outcome, notes, about, editions, language, folder)
            for language in LANGUAGES
        ]
        self._set |= {
            key: (folder / edition.folder, jobs)
            for key, edition in zip(keys, editions, strict=True)
        }

    def copy_to(
        self, outcome: Outcome, notes: Sequence[Note], edition: Edition, target: Path
    ) -> None:
        """Copy the handouts of `outcome` into `target`, as soon as they are set.

        Raises CourseError for what can't be set, MachineError if a process of ours was killed.
        """
        try:
            self._submit(outcome, notes, [edition])
            folder, jobs = self._set[_key(outcome, notes, edition)]
            for job in jobs:
                job.result()
        except BrokenProcessPool:
            why = "a process that sets them was killed; perhaps the machine was out of memory"
            raise MachineError(f"handouts of {outcome.run.name}: {why}") from None
        shutil.copytree(folder, target, dirs_exist_ok=True)


def _key(outcome: Outcome, notes: Sequence[Note], edition: Edition) -> tuple[int, str, Edition]:
    return id(outcome), json.dumps([dict(note) for note in notes]), edition


def _set(
    outcome: Outcome,
    notes: Sequence[Note],
    about: Mapping[str, str],
    editions: Sequence[Edition],
    language: str,
    folder: Path,
) -> None:
    """In a process of the pool: all handouts of an outcome in one language."""
    from ci.handout import handout, workbook

    for edition in editions:
        made = handout.from_outcome(outcome, notes, edition, about)
        handout.write(made, folder / edition.folder, [language])
        workbook.write(made, folder / edition.folder, [language])


def _set_up_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which then ends us
    os.nice(NICENESS)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the process that started us, also where that was killed."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
