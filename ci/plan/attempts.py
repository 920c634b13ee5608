"""Attempts: a folder for each execution of a run, hidden until all that belongs to it is there."""

import os
import shutil
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil

from ci.plan.planner import Run

EXECUTED, LOG = "executed.ipynb", "log.txt"  # what a worker leaves in an attempt


def begin(run: Run, folder: Path) -> Path:
    """A new folder for one execution of `run`, hidden until it is complete."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = folder / run.lesson.name / run.key / f".{stamp}-{os.getpid()}"
    path.mkdir(parents=True)
    return path


def now() -> str:
    """The date of an attempt, to the minute."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def complete(attempt: Path) -> Path:
    """Give a finished attempt its name, by which it is known to hold all that belongs to it."""
    if not attempt.name.startswith("."):
        return attempt
    return attempt.rename(attempt.with_name(attempt.name[1:].partition("-")[0]))


def tidy(attempt: Path) -> Path | None:
    """Remove what a lesson left in its attempt beside what its worker did; the notebook, if any.

    A lesson may write there. What we go on to write must not find a link of its, to elsewhere.
    """
    for path in attempt.iterdir():
        if path.name in (EXECUTED, LOG) and stat.S_ISREG(path.lstat().st_mode):
            path.chmod(0o644)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    notebook = attempt / EXECUTED
    return notebook if notebook.exists() else None


def sweep(folder: Path) -> None:
    """Remove what killed processes have left: unfinished attempts, kernels' private folders."""
    attempts = [
        (path, path.name.rpartition("-")[2])
        for path in folder.glob("*/*/.*-*")
        if not (path.parent.is_symlink() or path.parent.parent.is_symlink())
    ]
    places = {Path(tempfile.gettempdir()), Path("/tmp")}  # as in execute: /tmp for a long path
    private = [path for place in places for path in place.glob("pytorch-course-*-*")]
    for path, pid in [*attempts, *((path, path.name.split("-")[2]) for path in private)]:
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
