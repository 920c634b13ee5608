"""What a container sees of `lessons/` beside scripts: no link may show more of the machine."""

import os
from collections.abc import Iterable
from pathlib import Path

from ci.errors import CourseError, MachineError


def visible(lessons: Path) -> list[Path]:
    """The files and folders that lessons may read, except scripts, without the expected values.

    Raises CourseError for a link that leaves `lessons`, and for what is no file and no folder.
    """
    return [path for path in sorted(lessons.iterdir()) if _is_visible(path)]


def _is_visible(path: Path) -> bool:
    if path.name[0] in "._" or path.suffix == ".py":
        return False
    if not os.path.exists(path):  # a broken or circular link  # noqa: PTH110
        return False
    lessons, target = path.parent.resolve(), path.resolve()
    if (lessons / "expected") in (target, *target.parents):
        return False
    if lessons not in target.parents:
        raise CourseError(
            f"{path} links to {target}, which the lab does not show: copy it there, or use "
            "--on here if you trust the lesson"
        )
    if not (target.is_file() or target.is_dir()):
        raise CourseError(f"{path} is neither a file nor a folder: remove it")
    return True


def require_readable(paths: Iterable[Path], user: str) -> None:
    """Raise MachineError for a path that the user inside, `uid:gid`, cannot read as root can."""
    if os.getuid() == 0 and user != "0:0":
        for path in paths:
            wanted = 0o5 if path.is_dir() else 0o4
            if path.stat().st_mode & wanted != wanted:
                raise MachineError(
                    f"only root can read {path}, and the lab's user is not root: "
                    f"chmod -R o+rX {path}, or use --as-root"
                )
