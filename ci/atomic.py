"""Folders and files that take the place of others as a whole, or not at all."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends, and not if it raises."""
    new = _beside(target, "new")
    with _alone(target):
        _recover(target)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            swap(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def swap(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`; the old one is left at `new`, if any."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = _beside(target, "old")
        target.rename(old)  # between these two there is no page: `_recover` mends a stop here
        new.rename(target)
        old.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically, where the system and its file system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other)
    return bool(rename(*names, RENAME_EXCHANGE) == 0)


def _recover(target: Path) -> None:
    """Complete the swap of a run that was stopped between its two renames."""
    old = _beside(target, "old")
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f".{target.name}.{word}")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until no other process publishes here."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)
