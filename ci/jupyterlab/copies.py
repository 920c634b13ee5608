"""The student's copies of the lessons, in a folder of the student's own.

Runs in the lab, before JupyterLab and as its user: whatever a student made of that folder, a link
to elsewhere too, it reaches no further than the student does.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

RECORD = ".lessons.json"  # digests of the copies as they were made
HEADER = re.compile(rb"\A# ---\n.*?^# ---\n", re.DOTALL | re.MULTILINE)


def update(lessons: Path, folder: Path) -> list[str]:
    """Copy what `folder` lacks of `lessons`, and renew the copies that nobody has touched.

    What was touched is never written to. Returns what is to be said, a line each.
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
            lines.append(f"{name} has changed in the course; yours stays: rename it to get both")
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
    """Of a file's bytes below its header, which Jupyter writes anew whenever it opens a lesson.

    Empty where there is nothing of that name.
    """
    if path.is_file():
        return hashlib.sha256(HEADER.sub(b"", path.read_bytes(), count=1)).hexdigest()
    return "no file" if os.path.lexists(path) else ""


def _read(record: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads(record.read_text()).items()}
    except (OSError, ValueError, AttributeError):  # without it, every copy counts as touched
        return {}


def _write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def main(lessons: str, folder: str, *command: str) -> None:
    """Update `folder` from `lessons`, say what there is to say, and become `command`, in there."""
    for line in update(Path(lessons), Path(folder)):
        print(line, flush=True)
    os.chdir(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
