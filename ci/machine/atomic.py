"""Files and folders that are written, replaced, locked and removed as a whole or not at all."""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
PREFIX = "pytorch-course-"  # of private folders
LOCKED_AFTER_S = 10.0  # a private folder that is younger may not be locked yet


def write(path: Path, text: str) -> None:
    """Write `text` to `path`. An OSError names its folder, also where the disk is full."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # a lesson may have put a link there
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except OSError as error:
        error.filename = str(path.parent)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write plain data to `path`, for people to read too."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where the file is gone or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remove(folder: Path) -> None:
    """Remove a folder (or a file, or a link) with everything in it, as far as this user may.

    A lesson may have nested thousands of folders or taken rights away, for which Python's `rmtree`
    gives up.
    """
    try:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that replaces `target` when the block ends, unless the block raises."""
    new = _beside(target, "new")
    _recover(target)
    remove(new)
    new.mkdir(parents=True)
    try:
        yield new
        _swap(new, target)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk
            error.filename = str(target.parent)
        raise
    finally:
        remove(new)


def _swap(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`, and an old `target` in the place of `new`."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = _beside(target, "old")
        target.rename(old)  # until the next line there is no target: `_recover` restores it
        new.rename(target)
        old.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or its file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other)
    return bool(rename(*names, RENAME_EXCHANGE) == 0)


def _recover(target: Path) -> None:
    """Complete the swap of a process that was stopped between the two renames."""
    old = _beside(target, "old")
    if old.exists() and not target.exists():
        old.rename(target)
    remove(old)


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f".{target.name}.{word}")


@contextlib.contextmanager
def exclusive(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `folder`; call `on_wait` once where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder for this user alone, removed at the end of the block.

    It is locked, so that `remove_abandoned_folders` recognises those of processes that were killed,
    also from a container with other process ids.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        remove(folder)
        os.close(lock)


def remove_abandoned_folders() -> None:
    """Remove the private folders of processes that were killed."""
    for parent in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for folder in parent.glob(f"{PREFIX}*/"):
            with contextlib.suppress(OSError):  # another user's, or gone
                _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    if time.time() - folder.stat().st_mtime < LOCKED_AFTER_S:
        return
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)
    finally:
        os.close(lock)
