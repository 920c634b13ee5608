"""Attempts: one folder per execution of a run, hidden until all of its files are there."""

import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

from ci.errors import MachineError
from ci.machine import atomic
from ci.plan.planner import Run

NOTEBOOK, LOG, CHECKS = "executed.ipynb", "log.txt", "checks.json"  # the files of an attempt
KEPT = 3  # attempts of a run
MOST_FILES = 10_000  # and folders, in an attempt
MOST_BYTES = 2 * 2**30  # of its files together
LONGEST_LOG = 10 * 2**20  # bytes that are kept


def remove_bytecode(lessons: Path) -> None:
    """Remove the bytecode below `lessons`, so that each run imports its helpers from their source.

    Python takes bytecode for current if size and date of the source are, which archives, copies and
    version control can restore for another text. Raises MachineError if it cannot be removed.
    """
    for folder in [path for path in lessons.rglob("__pycache__") if not path.is_symlink()]:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            message = f"{folder}: {error.strerror}: remove it, since its bytecode may be stale"
            raise MachineError(message) from None


def begin(run: Run, folder: Path) -> Path:
    """A new, hidden folder for one execution of `run`."""
    path = folder / run.lesson.name / run.key / f".{stamp()}-{os.getpid()}"
    path.mkdir(parents=True)
    return path


def stamp() -> str:
    """The time as the name of a folder, in the order of which names are sorted."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


def timestamp() -> str:
    """The date of an attempt, to the minute."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def complete(attempt: Path) -> Path:
    """Make a finished attempt visible; the new path.

    Its name is the date, and comes after the names of earlier attempts even if the clock was set
    back: the last attempt in the order of names is the last execution.
    """
    if not attempt.name.startswith("."):
        return attempt
    date = attempt.name[1:].partition("-")[0]
    last = max((path.name for path in complete_attempts(attempt.parent)), default="")
    if date <= last:
        before, _, count = last.partition("+")
        date = f"{before}+{int(count or 0) + 1:06d}"
    return attempt.rename(attempt.with_name(date))


def complete_attempts(folder: Path) -> list[Path]:
    """The complete attempts of a run, the oldest first."""
    return sorted(path for path in folder.glob("*") if path.name[0] != ".")


def tidy(attempt: Path) -> Path | None:
    """Remove everything but the notebook and the log; the notebook, if there is one.

    The lesson can write here, so remove any symlink that it planted.
    """
    attempt.chmod(0o755)
    for path in attempt.iterdir():
        if path.name in (NOTEBOOK, LOG) and stat.S_ISREG(path.lstat().st_mode):
            path.chmod(0o644)
            if path.name == LOG and path.stat().st_size > LONGEST_LOG:
                os.truncate(path, LONGEST_LOG)
        elif path.is_dir() and not path.is_symlink():
            atomic.remove(path)
        else:
            path.unlink()
    notebook = attempt / NOTEBOOK
    return notebook if notebook.exists() else None


def excess(attempt: Path) -> str:
    """Why an attempt in progress takes too much of the disk; empty if it does not."""
    files = used = 0
    folders = [attempt]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry))
                    else:
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > MOST_FILES:
                        return f"it leaves more than {MOST_FILES:,} files in its attempt"
                    if used > MOST_BYTES:
                        return f"its files and its log take more than {MOST_BYTES / 2**30:g} GiB"
    except FileNotFoundError:  # removed meanwhile
        return ""
    except OSError as error:  # nested too deeply, or without rights
        return f"it leaves files in its attempt that cannot be counted: {error.strerror}"
    return ""


def remove_incomplete(folder: Path) -> None:
    """Remove the incomplete attempts below `folder`.

    They are of invocations that were killed, since only one invocation uses a folder at a time.
    """
    for path in folder.glob("*/*/.*"):
        if not (path.parent.is_symlink() or path.parent.parent.is_symlink()):
            atomic.remove(path)
