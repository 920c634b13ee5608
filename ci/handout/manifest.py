"""The manifest of a published page: for each lesson, the key of its handouts and their digests.

Handouts that are undamaged and have the same key are not made again. The manifest of a page is
outside of the page, so a page that was replaced without its manifest does not match it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import CourseError
from ci.handout.editions import EDITIONS, Edition, Note
from ci.machine import atomic
from ci.plan import keys

ENTRIES = "index.json"  # the entries of the index page, which the next run carries over


def settled(build: Path, notes: Sequence[Note]) -> Callable[[str, str], bool]:
    """A function that tells, by a lesson's name and the key of its run, whether the pages below
    `build` have its handouts, undamaged and with these notes."""
    pages = [lessons(build, edition) for edition in EDITIONS]
    return lambda name, run_key: (
        bool(run_key) and all(page.get(name) == key(run_key, notes) for page in pages)
    )


def key(run_key: str, notes: Sequence[Note]) -> str:
    """The key of the handouts of a run, with notes at the top; empty if the run has no key."""
    return keys.digest(run_key, _digest_of(notes)) if run_key else ""


def lessons(build: Path, edition: Edition) -> dict[str, str]:
    """The lessons whose handouts and entries are undamaged, with the keys of the handouts."""
    folder, known = build / edition.folder, atomic.read_json(_path(build, edition))
    if not known or not _is_intact(folder, {ENTRIES: known["page"].get(ENTRIES, "")}):
        return {}
    found = known["lessons"]
    return {name: found[name]["key"] for name in found if _is_intact(folder, found[name]["files"])}


def entries(page: Path) -> dict[str, dict[str, Any]]:
    """The entries of a page, by the names of the lessons. Raises CourseError if it is damaged."""
    path = page / ENTRIES
    if not path.exists():
        return {}
    try:
        return {entry["name"]: entry for entry in json.loads(path.read_text("utf-8"))}
    except (ValueError, TypeError, KeyError):
        raise CourseError(f"{path} is damaged: run all lessons, or remove it") from None


def ordered(
    found: Mapping[str, dict[str, Any]], order: Sequence[str], unchanged: Collection[str]
) -> list[dict[str, Any]]:
    """The entries of a page in the order of the course; `unchanged` lessons get that status."""
    known = [found[name] for name in order if name in found]
    return [{**e, "status": "unchanged"} if e["name"] in unchanged else e for e in known]


def is_renewed(
    build: Path, order: Sequence[str], unchanged: Collection[str], notes: Sequence[Note]
) -> bool:
    """Whether the pages below `build` already say what new pages would say."""
    for edition in EDITIONS:
        folder, known = build / edition.folder, atomic.read_json(_path(build, edition))
        if known.get("notes") != _digest_of(notes) or not _is_intact(folder, known["page"]):
            return False
        found = entries(folder)
        if [*found.values()] != ordered(found, order, unchanged):
            return False
    return True


def write(build: Path, edition: Edition, made: Mapping[str, str], notes: Sequence[Note]) -> None:
    """Write the manifest of the page of `edition`; `made` has the keys of its lessons."""
    folder = build / edition.folder
    files = sorted(folder.glob("*/*"))
    found = {
        name: {"key": key, "files": _digests(folder, _files_of(name, files, edition))}
        for name, key in made.items()
    }
    page = _digests(folder, filter(Path.is_file, folder.iterdir()))
    atomic.write_json(
        _path(build, edition), {"lessons": found, "page": page, "notes": _digest_of(notes)}
    )


def _files_of(name: str, files: Iterable[Path], edition: Edition) -> list[Path]:
    return [path for path in files if path.stem in (name, f"{name}_{edition.workbook}")]


def _digest_of(notes: Sequence[Note]) -> str:
    return keys.digest([dict(note) for note in notes])


def _digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    return {str(Path(name).relative_to(folder)): found for name, found in keys.contents(paths)}


def _is_intact(folder: Path, files: Mapping[str, str]) -> bool:
    try:
        return bool(files) and _digests(folder, (folder / name for name in files)) == files
    except OSError:
        return False


def _path(build: Path, edition: Edition) -> Path:
    return build / "records" / f"{edition.folder}.json"
