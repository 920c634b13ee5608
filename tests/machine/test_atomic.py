"""Files and folders that are complete or as they were."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ci.machine import atomic


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


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """The second waits, says so once, and goes on when the first has ended."""
    waits = threading.Event()
    entered = threading.Event()

    def second() -> None:
        with atomic.exclusive(tmp_path, waits.set):
            entered.set()

    with atomic.exclusive(tmp_path, on_wait=waits.set):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set()


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    """Nobody has to remove a lock file by hand."""
    process = holding(f"atomic.exclusive(Path({str(tmp_path)!r}), print)")
    process.kill()
    process.wait()
    with atomic.exclusive(tmp_path, on_wait=lambda: pytest.fail("it is still locked")):
        pass


def holding(context: str) -> "subprocess.Popen[str]":
    """A process inside a context of `atomic`, whose value it prints."""
    program = (
        "import time; from pathlib import Path; from ci.machine import atomic\n"
        f"with {context} as held: print(held, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.path = Path(process.stdout.readline().strip())  # type: ignore[attr-defined]
    process.stdout.close()
    return process


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_only_private_folders_of_ended_processes_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals | None
) -> None:
    """A lock tells them apart, and no process id, which means nothing in another container."""
    monkeypatch.setattr(atomic, "LOCKED_AFTER_S", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = holding("atomic.private_folder()")
    try:
        if end:
            os.kill(process.pid, end)
            process.wait()
        atomic.remove_abandoned_folders()
        assert process.path.exists() == (end is None)
    finally:
        process.kill()
        process.wait()


def test_a_new_private_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may not have locked it yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "pytorch-course-new"
    folder.mkdir()
    atomic.remove_abandoned_folders()
    assert folder.exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "\0"])
def test_a_damaged_record_reads_as_empty(tmp_path: Path, text: str) -> None:
    """It is as good as none."""
    (tmp_path / "record.json").write_text(text)
    assert atomic.read_json(tmp_path / "record.json") == {}
