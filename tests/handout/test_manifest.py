"""Handouts are kept if they are undamaged and their inputs unchanged, else they are made again."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.handout import manifest, publish
from ci.handout.pool import HandoutPool
from ci.judge.outcome import Outcome
from tests.conftest import Read, files
from tests.handout.test_publish import outcome

ORDER = ["01_small", "02_small"]


@pytest.fixture
def page(read: Read, tmp_path: Path, pool: HandoutPool) -> list[Outcome]:
    """The outcomes of two lessons whose handouts are on a page in `tmp_path`."""
    made = [replace(outcome(read, name), key=f"key of {name}") for name in ORDER]
    publish.publish(made, ORDER, tmp_path, pool)
    return made


def unchanged(made: Outcome) -> Outcome:
    """The outcome of a later run that relies on this one."""
    return replace(made, status="unchanged", notebook=None)


def settled(build: Path) -> list[bool]:
    """Whether the handouts of each lesson can be kept."""
    found = manifest.settled(build, ())
    return [found(name, f"key of {name}") for name in ORDER]


def test_handouts_are_kept_with_their_key(page: list[Outcome], tmp_path: Path) -> None:
    """With other inputs, or a note at the top, they would differ."""
    assert settled(tmp_path) == [True, True]
    assert not manifest.settled(tmp_path, ())("01_small", "another key")
    assert not manifest.settled(tmp_path, ())("01_small", "")
    assert not manifest.settled(tmp_path, [publish.ON_CPU])("01_small", "key of 01_small")


def test_handouts_of_a_run_without_a_key_are_never_kept(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """Their inputs are not known."""
    publish.publish([outcome(read, "01_small")], ORDER, tmp_path, pool)
    assert not manifest.settled(tmp_path, ())("01_small", "")


def append(path: Path) -> None:
    """Append a byte."""
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", ["handouts/en/01_small.pdf", "instructors/zh/01_small.ipynb"])
@pytest.mark.parametrize("harm", [os.unlink, append])
def test_a_damaged_handout_is_made_again(
    page: list[Outcome], tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    """In either edition; the other lesson is kept."""
    harm(tmp_path / name)
    assert settled(tmp_path) == [False, True]


def test_the_next_page_does_not_hide_damage(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """A damaged handout that is carried over has no key."""
    append(tmp_path / "handouts" / "en" / "01_small.html")
    publish.publish([page[1]], ORDER, tmp_path, pool)
    assert settled(tmp_path) == [False, True]


def test_an_unchanged_course_keeps_its_pages(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """The first run notes it, all pages stay the same bytes, and the next run writes nothing."""
    before = files(tmp_path / "handouts")
    again = [unchanged(made) for made in page]
    publish.publish(again, ORDER, tmp_path, pool)
    after = files(tmp_path / "handouts")
    assert after["index.json"].decode().count('"unchanged"') == 2
    assert {n: after[n] for n in after if after[n] != before[n]}.keys() == {"index.json"}
    folder = (tmp_path / "handouts").stat().st_ino
    publish.publish(again, ORDER, tmp_path, pool)
    assert (tmp_path / "handouts").stat().st_ino == folder


@pytest.mark.parametrize("name", ["index.html", "handouts.zip"])
def test_a_damaged_page_is_written_again(
    page: list[Outcome], tmp_path: Path, name: str, pool: HandoutPool
) -> None:
    """From handouts that are kept."""
    again = [unchanged(made) for made in page]
    publish.publish(again, ORDER, tmp_path, pool)
    before = files(tmp_path / "handouts")
    (tmp_path / "handouts" / name).unlink()
    publish.publish(again, ORDER, tmp_path, pool)
    assert files(tmp_path / "handouts") == before


@pytest.mark.parametrize("harm", [os.unlink, append])
def test_a_page_without_its_entries_is_made_again(
    page: list[Outcome], tmp_path: Path, harm: Callable[[Path], None], pool: HandoutPool
) -> None:
    """Its content is not known; a run that relied on it fails with a message."""
    harm(tmp_path / "handouts" / "index.json")
    assert settled(tmp_path) == [False, False]
    publish.publish(page, ORDER, tmp_path, pool)
    assert settled(tmp_path) == [True, True]
    (tmp_path / "handouts" / "index.json").unlink()
    with pytest.raises(CourseError, match="run again"):
        publish.publish([unchanged(made) for made in page], ORDER, tmp_path, pool)


def test_one_new_lesson_leaves_the_other_unchanged(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """Only its own handouts are new."""
    before = files(tmp_path / "handouts")
    new = replace(page[0], date="2027-01-01 12:00 UTC", notebook=copy.deepcopy(page[0].notebook))
    publish.publish([new, unchanged(page[1])], ORDER, tmp_path, pool)
    after = files(tmp_path / "handouts")
    changed = {Path(name).name for name in after if "/" in name and after[name] != before[name]}
    assert changed >= {"01_small.html", "01_small.pdf"}
    assert not changed & {"02_small.html", "02_small.pdf", "02_small.ipynb"}
    assert settled(tmp_path) == [True, True]


def test_a_failed_plan_makes_drafts_of_executed_lessons(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """The unchanged lesson is on the page, which stays."""
    before = files(tmp_path / "handouts")
    publish.publish([replace(page[0], status="differs"), unchanged(page[1])], ORDER, tmp_path, pool)
    assert files(tmp_path / "handouts") == before
    assert (tmp_path / "drafts/en/01_small.html").exists()
    assert not (tmp_path / "drafts/en/02_small.html").exists()
