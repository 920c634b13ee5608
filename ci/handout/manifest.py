"""What a published page holds: of each lesson, what its handouts were made from, and their bytes.

Handouts that are what they were, made from the same, are not made again. The manifest of a page
lies outside it: a page that was swapped without its manifest is no match, and is made anew.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci import atomic
from ci.errors import CourseError
from ci.handout.handout import EDITIONS, Edition
from ci.plan import keys

ENTRIES = "index.json"  # what the index page is made from, and what the next run carries over

Note = Mapping[str, str]


def settled(build: Path, notes: Sequence[Note]) -> Callable[[str, str], bool]:
    """Whether handouts of a lesson, by name and key, are on the page below `build`, undamaged."""
    pages = [lessons(build, edition) for edition in EDITIONS]
    return lambda name, made: (
        bool(made) and all(page.get(name) == key(made, notes) for page in pages)
    )


def key(made: str, notes: Sequence[Note]) -> str:
    """The key of handouts with notes at their top; empty where what they are of has none."""
    return keys.digest(made, _said(notes)) if made else ""


def lessons(build: Path, edition: Edition) -> dict[str, str]:
    """The lessons whose handouts and entries are there, byte for byte, with their keys."""
    folder, known = build / edition.folder, atomic.read_json(_path(build, edition))
    if not known or not _intact(folder, {ENTRIES: known["page"].get(ENTRIES, "")}):
        return {}
    found = known["lessons"]
    return {name: found[name]["key"] for name in found if _intact(folder, found[name]["files"])}


def entries(page: Path) -> dict[str, dict[str, Any]]:
    """What stands on a page, by the names of the lessons. Raises CourseError if it is damaged."""
    path = page / ENTRIES
    if not path.exists():
        return {}
    try:
        return {entry["name"]: entry for entry in json.loads(path.read_text("utf-8"))}
    except (ValueError, TypeError, KeyError):
        raise CourseError(f"{path} is damaged: run all lessons, or remove it") from None


def renewed(
    found: Mapping[str, dict[str, Any]], order: Sequence[str], standing: Collection[str]
) -> list[dict[str, Any]]:
    """The entries of a page in order, those of `standing` lessons as unchanged."""
    known = [found[name] for name in order if name in found]
    return [{**e, "status": "unchanged"} if e["name"] in standing else e for e in known]


def is_renewed(
    build: Path, order: Sequence[str], standing: Collection[str], notes: Sequence[Note]
) -> bool:
    """Whether the pages that are there say all that they would say if they were made anew."""
    for edition in EDITIONS:
        folder, known = build / edition.folder, atomic.read_json(_path(build, edition))
        if known.get("notes") != _said(notes) or not _intact(folder, known["page"]):
            return False
        found = entries(folder)
        if [*found.values()] != renewed(found, order, standing):
            return False
    return True


def write(build: Path, edition: Edition, made: Mapping[str, str], notes: Sequence[Note]) -> None:
    """Write down what stands on the page of `edition` now; `made` has the keys of its lessons."""
    folder = build / edition.folder
    files = sorted(folder.glob("*/*"))
    found = {
        name: {"key": key, "files": _digests(folder, _files_of(name, files, edition))}
        for name, key in made.items()
    }
    page = _digests(folder, filter(Path.is_file, folder.iterdir()))
    atomic.write_json(
        _path(build, edition), {"lessons": found, "page": page, "notes": _said(notes)}
    )


def _files_of(name: str, files: Iterable[Path], edition: Edition) -> list[Path]:
    return [path for path in files if path.stem in (name, f"{name}_{edition.workbook}")]


def _said(notes: Sequence[Note]) -> str:
    return keys.digest([dict(note) for note in notes])


def _digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _intact(folder: Path, files: Mapping[str, str]) -> bool:
    try:
        return bool(files) and _digests(folder, (folder / name for name in files)) == files
    except OSError:
        return False


def _path(build: Path, edition: Edition) -> Path:
    return build / "records" / f"{edition.folder}.json"
