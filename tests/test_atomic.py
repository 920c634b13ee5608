"""A folder in another's place: complete, or as it was."""

from pathlib import Path

import pytest

from ci import atomic


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_replaced_at_once(tmp_path: Path) -> None:
    """The old content is there until the new one is complete."""
    target = tmp_path / "page"
    with atomic.replacing(target) as new:
        (new / "a").write_text("1")
    with atomic.replacing(target) as new:
        (new / "b").write_text("2")
        assert files(target) == {"a": b"1"}
    assert files(target) == {"b": b"2"}


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    """Nothing half-written takes its place, and nothing is left beside it."""
    target = tmp_path / "page"
    with atomic.replacing(target) as new:
        (new / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic.replacing(target) as new:
        (new / "a").write_text("half")
        raise ZeroDivisionError
    assert files(target) == {"a": b"1"}
    assert not list(tmp_path.glob(".page.new"))


def test_a_swap_without_exchange_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system can't exchange two names, they are renamed one after the other."""
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    target = tmp_path / "page"
    for text in ("1", "2"):
        with atomic.replacing(target) as new:
            (new / "a").write_text(text)
    assert files(target) == {"a": b"2"}


def test_a_swap_that_was_stopped_in_the_middle_is_mended(tmp_path: Path) -> None:
    """Between the two renames the old page lies beside: the next start brings it back."""
    target = tmp_path / "page"
    (tmp_path / ".page.old").mkdir()
    (tmp_path / ".page.old" / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic.replacing(target):
        raise ZeroDivisionError
    assert files(target) == {"a": b"1"}
