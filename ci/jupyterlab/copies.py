"""A student's own copies of the lessons, in the student's own folder.

This module runs in the lab as the student, before JupyterLab. So it can reach no more than the
student can, even if that folder has links to elsewhere.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

RECORD = ".lessons.json"  # digests of the copies when they were made
HEADER = re.compile(rb"\A# ---\n.*?^# ---\n", re.DOTALL | re.MULTILINE)


def update(lessons: Path, folder: Path) -> list[str]:
    """Copy the files of `lessons` that `folder` lacks, and renew the copies nobody has changed.

    A changed copy is never overwritten. Returns lines to print.
    """
    made = _read(folder / RECORD)
    lines = []
    for path in _files(lessons):
        name, copy = str(path.relative_to(lessons)), folder / path.relative_to(lessons)
        course, mine = _digest(path), _digest(copy)
        if mine in ("", made.get(name)) and mine != course:
            try:
                _write(path.read_bytes(), copy)
            except OSError as error:
                lines.append(f"{name} of the course was not copied: {error.strerror}")
                continue
        elif mine != course and made.get(name) != course:
            lines.append(
                f"{name} has changed in the course; your copy stays: rename it to get both"
            )
            continue
        made[name] = course
    _write(json.dumps(made, indent=1).encode(), folder / RECORD)
    return lines


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )


def _digest(path: Path) -> str:
    """Return a digest of a file below its header, which Jupyter rewrites when it opens a lesson.

    Empty if nothing has that name.
    """
    if path.is_file():
        return hashlib.sha256(HEADER.sub(b"", path.read_bytes(), count=1)).hexdigest()
    return "no file" if os.path.lexists(path) else ""


def _read(record: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads(record.read_text()).items()}
    except (OSError, ValueError, AttributeError):  # without it, every copy counts as changed
        return {}


def _write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def main(lessons: str, folder: str, *command: str) -> None:
    """Update `folder` from `lessons`, print the lines, and become `command`, run in `folder`."""
    for line in update(Path(lessons), Path(folder)):
        print(line, flush=True)
    os.chdir(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
