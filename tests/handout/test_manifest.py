"""Handouts that are what they were are not made again; all others are."""

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
from tests.conftest import Read
from tests.handout.test_publish import files, outcome

ORDER = ["01_small", "02_small"]


@pytest.fixture
def page(read: Read, tmp_path: Path, pool: HandoutPool) -> list[Outcome]:
    """The outcomes of two lessons whose handouts stand on a page in `tmp_path`."""
    made = [replace(outcome(read, name), key=f"key of {name}") for name in ORDER]
    publish.publish(made, ORDER, tmp_path, pool)
    return made


def unchanged(made: Outcome) -> Outcome:
    """The same, found again."""
    return replace(made, status="unchanged", notebook=None)


def settled(build: Path) -> list[bool]:
    """Whether the handouts of each lesson need not be made."""
    found = manifest.settled(build, ())
    return [found(name, f"key of {name}") for name in ORDER]


def test_handouts_stand_with_their_key(page: list[Outcome], tmp_path: Path) -> None:
    """Made from something else, or with a note at their top, they would be others."""
    assert settled(tmp_path) == [True, True]
    assert not manifest.settled(tmp_path, ())("01_small", "another key")
    assert not manifest.settled(tmp_path, ())("01_small", "")
    assert not manifest.settled(tmp_path, [publish.ON_CPU])("01_small", "key of 01_small")


def test_handouts_of_a_run_without_a_key_never_stand(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """Nobody knows what they were made from."""
    publish.publish([outcome(read, "01_small")], ORDER, tmp_path, pool)
    assert not manifest.settled(tmp_path, ())("01_small", "")


def append(path: Path) -> None:
    """A byte more."""
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", ["handouts/en/01_small.pdf", "instructors/zh/01_small.ipynb"])
@pytest.mark.parametrize("harm", [os.unlink, append])
def test_a_damaged_handout_is_made_anew(
    page: list[Outcome], tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    """In either edition; the other lesson stands."""
    harm(tmp_path / name)
    assert settled(tmp_path) == [False, True]


def test_damage_is_not_blessed_by_the_next_page(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """What is carried over keeps the key only of what it was."""
    append(tmp_path / "handouts" / "en" / "01_small.html")
    publish.publish([page[1]], ORDER, tmp_path, pool)
    assert settled(tmp_path) == [False, True]


def test_an_unchanged_course_says_so_once(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """The index says it, the handouts are the same bytes, and then nothing is written any more."""
    before = files(tmp_path / "handouts")
    again = [unchanged(made) for made in page]
    publish.publish(again, ORDER, tmp_path, pool)
    after = files(tmp_path / "handouts")
    assert after["index.html"].decode().count("✓ unchanged") == 2
    assert {n: after[n] for n in after if "/" in n} == {n: before[n] for n in before if "/" in n}
    folder = (tmp_path / "handouts").stat().st_ino
    publish.publish(again, ORDER, tmp_path, pool)
    assert (tmp_path / "handouts").stat().st_ino == folder


@pytest.mark.parametrize("name", ["index.html", "handouts.zip"])
def test_a_damaged_page_is_written_again(
    page: list[Outcome], tmp_path: Path, name: str, pool: HandoutPool
) -> None:
    """From handouts that stand."""
    again = [unchanged(made) for made in page]
    publish.publish(again, ORDER, tmp_path, pool)
    before = files(tmp_path / "handouts")
    (tmp_path / "handouts" / name).unlink()
    publish.publish(again, ORDER, tmp_path, pool)
    assert files(tmp_path / "handouts") == before


@pytest.mark.parametrize("harm", [os.unlink, append])
def test_a_page_without_its_entries_is_made_anew(
    page: list[Outcome], tmp_path: Path, harm: Callable[[Path], None], pool: HandoutPool
) -> None:
    """Nobody knows what stood there; somebody who thought so is told."""
    harm(tmp_path / "handouts" / "index.json")
    assert settled(tmp_path) == [False, False]
    publish.publish(page, ORDER, tmp_path, pool)
    assert settled(tmp_path) == [True, True]
    (tmp_path / "handouts" / "index.json").unlink()
    with pytest.raises(CourseError, match="run again"):
        publish.publish([unchanged(made) for made in page], ORDER, tmp_path, pool)


def test_one_new_lesson_leaves_the_other(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """Its handouts are new, those of the unchanged one the same bytes."""
    before = files(tmp_path / "handouts")
    new = replace(page[0], date="2027-01-01 12:00 UTC", notebook=copy.deepcopy(page[0].notebook))
    publish.publish([new, unchanged(page[1])], ORDER, tmp_path, pool)
    after = files(tmp_path / "handouts")
    changed = {Path(name).name for name in after if "/" in name and after[name] != before[name]}
    assert changed >= {"01_small.html", "01_small.pdf"}
    assert not changed & {"02_small.html", "02_small.pdf", "02_small.ipynb"}
    assert settled(tmp_path) == [True, True]


def test_a_red_plan_drafts_what_has_a_notebook(
    page: list[Outcome], tmp_path: Path, pool: HandoutPool
) -> None:
    """What is unchanged stands on the page, which stays."""
    before = files(tmp_path / "handouts")
    publish.publish([replace(page[0], status="differs"), unchanged(page[1])], ORDER, tmp_path, pool)
    assert files(tmp_path / "handouts") == before
    assert (tmp_path / "drafts/en/01_small.html").exists()
    assert not (tmp_path / "drafts/en/02_small.html").exists()
