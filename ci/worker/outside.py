"""Refuse what a lesson reads outside its folder, since nobody would notice that it changed.

A result stays valid as long as its inputs are the same, and these are the files below `lessons/`
and the installed packages (see `ci.plan.keys`).
"""

import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SYSTEM = (  # files of the operating system, and devices
    *("/bin", "/dev", "/etc", "/lib", "/lib64", "/nix", "/opt", "/proc", "/run", "/snap", "/sys"),
    *("/usr", "/var", "/Library", "/System", "/private/etc", "/private/var"),
)
NOT_READ = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def refuse(lessons: Path) -> None:
    """From now on, to open such a file raises PermissionError, in this process and for good.

    Does not see what other processes read, nor what a library opens without Python.
    """
    start, allowed = time.time(), _allowed(lessons)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - links stay
            if not arguments[2] & NOT_READ and _is_old(path, start) and not _below(path, allowed):
                raise PermissionError(
                    f"{path} is outside the lessons' folder, so nobody would notice that it "
                    f"changed: move it into {lessons}, or link it there"
                )

    sys.addaudithook(hook)


def _allowed(lessons: Path) -> list[str]:
    """Folders below which every file may be read; the packages among them are part of the keys."""
    imports = [path for path in sys.path if path and not lessons.is_relative_to(path)]
    pipeline, home = Path(__file__).parents[1], Path.home()
    hidden = [str(path) for path in home.glob(".*") if path not in lessons.parents]
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *imports, str(pipeline)]
    return [*SYSTEM, *python, *hidden, tempfile.gettempdir(), str(lessons)]  # TMPDIR is the run's


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _is_old(path: str, start: float) -> bool:
    """Whether it is a file that existed before the lesson, so that the lesson did not write it."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < start
