"""Handouts made in other processes, while other lessons are still being executed."""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

from ci.errors import CourseError, MachineError
from ci.handout import check_table, dialect, markdown
from ci.handout.editions import EDITIONS, FORMATS, Edition, Note
from ci.judge.outcome import Outcome
from ci.machine.atomic import private_folder

if TYPE_CHECKING:
    from ci.handout.handout import Handout

HTML = ("html",)  # made first, in a tenth of the time of the others
OTHERS = tuple(kind for kind in FORMATS if kind not in HTML)
TARGETS: dict[tuple[str, ...], markdown.Target] = {HTML: "html", OTHERS: "typst"}  # of their prose

Key = tuple[int, str, Edition]


class HandoutPool:
    """Makes the handouts of each outcome as soon as it is submitted.

    A context manager: when it ends, its processes end, and all files that were not copied go. The
    server that forks its processes ends with the process that called it.
    """

    def __init__(self) -> None:
        self._files = contextlib.ExitStack()
        self._folder = self._files.enter_context(private_folder())
        self._outcomes: list[Outcome] = []  # kept, so that no two have the same id
        self._jobs: dict[Key, tuple[Path, dict[tuple[str, ...], list[Future[None]]]]] = {}

    def __enter__(self) -> HandoutPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_processes()
        self._files.close()

    def _end_processes(self) -> None:
        if processes := vars(self).pop("_processes", None):
            processes.shutdown(cancel_futures=True)

    @functools.cached_property
    def _processes(self) -> ProcessPoolExecutor:
        self.start()
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(mp_context=context, initializer=_follow_parent)

    def start(self) -> None:
        """Start the server, which imports the converters while the first lessons are executed."""
        forkserver.set_forkserver_preload(["ci.handout.preload"])
        forkserver.ensure_running()

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
        from ci.handout.handout import Handout, provenance  # slow to import

        folder = self._folder / str(len(self._outcomes))
        self._outcomes.append(outcome)
        known = provenance(outcome)
        handouts = [Handout(outcome, known, notes, edition) for edition in editions]
        languages = outcome.run.lesson.languages
        jobs = {
            # The pages of a lesson have its code and the font of its formulas in common. PDFs take
            # longer, so that its languages are set in parallel.
            HTML: [self._start(handouts, languages, folder, HTML)],
            OTHERS: [self._start(handouts, [each], folder, OTHERS) for each in languages],
        }
        for edition in editions:
            self._jobs[_key(outcome, notes, edition)] = folder / edition.folder, jobs

    def _start(
        self,
        handouts: Sequence[Handout],
        languages: Sequence[str],
        folder: Path,
        formats: tuple[str, ...],
    ) -> Future[None]:
        outcome, lesson = handouts[0].outcome, handouts[0].lesson
        texts = dialect.texts(lesson.notebook.cells, lesson.path.parent)
        texts += check_table.derivations(outcome.results, lesson.languages)
        prose: dict[str, Mapping[str, str]] = {}
        with contextlib.suppress(CourseError):  # of a formula: the process names its cell
            prose[TARGETS[formats]] = markdown.render(texts, TARGETS[formats])
            if "pdf" in formats:
                prose["plain"] = markdown.spoken(t for t in texts if t.startswith(dialect.CAPTIONS))
        return self._processes.submit(_write, handouts, languages, folder, formats, prose)

    def copy_to(
        self,
        target: Path,
        outcome: Outcome,
        notes: Sequence[Note],
        edition: Edition,
        *,
        html_only: bool = False,
    ) -> None:
        """Copy the handouts of `outcome` into the folder `target` when they are complete.

        With `html_only`, only the HTML, without waiting for the other formats.

        Raises CourseError for content that can't be set, MachineError if a process was killed.
        """
        try:
            self._submit(outcome, notes, [edition])
            folder, jobs = self._jobs[_key(outcome, notes, edition)]
            for job in jobs[HTML] + ([] if html_only else jobs[OTHERS]):
                job.result()
        except BrokenProcessPool:
            self._end_processes()  # the handouts of the next run get new ones
            raise MachineError(
                f"handouts of {outcome.run.name}: a process that makes them was killed; perhaps "
                "the machine was out of memory"
            ) from None
        shutil.copytree(
            folder,
            target,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(*(f"*.{kind}" for kind in OTHERS if html_only)),
        )


def _key(outcome: Outcome, notes: Sequence[Note], edition: Edition) -> Key:
    return id(outcome), json.dumps([dict(note) for note in notes]), edition


def _write(
    handouts: Sequence[Handout],
    languages: Sequence[str],
    folder: Path,
    formats: tuple[str, ...],
    prose: Mapping[str, Mapping[str, str]],
) -> None:
    from ci.handout import converters  # slow to import, and needed only in the other processes

    markdown.adopt(prose)
    try:
        for handout in handouts:
            converters.write(handout, folder / handout.edition.folder, languages, formats)
    except (CourseError, OSError):
        raise
    except Exception as error:  # one that pickle cannot restore would end all processes
        raise RuntimeError("".join(traceback.format_exception(error))) from None


def _follow_parent() -> None:
    """End this process when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
