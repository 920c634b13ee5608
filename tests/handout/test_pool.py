"""Handouts made in other processes: the same as in this one, and nothing of them remains."""

import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from ci.errors import CourseError, MachineError
from ci.handout import converters
from ci.handout.editions import EDITIONS, STUDENTS
from ci.handout.handout import Handout, provenance
from ci.handout.pool import HandoutPool
from ci.judge.outcome import Outcome, Status
from ci.machine import atomic
from ci.plan.planner import Run
from tests.conftest import EXERCISE, HALVES, ROOT, Read, eventually, files
from tests.handout.test_publish import outcome

NOTE = {"en": "Mind this.", "zh": "注意。"}


def children() -> list[psutil.Process]:
    """The processes that this one has started."""
    return psutil.Process().children(recursive=True)


def test_handouts_are_those_that_this_process_would_make(
    read: Read, pool: HandoutPool, tmp_path: Path
) -> None:
    """Byte for byte, in each edition."""
    made = outcome(read, "01_small")
    pool.submit(made, [NOTE])
    for edition in EDITIONS:
        pool.copy_to(tmp_path / edition.folder, made, [NOTE], edition)
        here = Handout(made, provenance(made), [NOTE], edition)
        converters.write(here, tmp_path / "here")
        assert files(tmp_path / edition.folder) == files(tmp_path / "here")
        assert len(files(tmp_path / "here")) == 6


def test_another_note_makes_other_handouts(read: Read, pool: HandoutPool, tmp_path: Path) -> None:
    """The handouts of a page are not used as drafts."""
    made = outcome(read, "01_small")
    pool.submit(made, [])
    pool.copy_to(tmp_path, made, [NOTE], STUDENTS)
    assert "Mind this." in (tmp_path / "en/01_small.html").read_text()


def test_handouts_go_beside_those_of_other_lessons(
    read: Read, pool: HandoutPool, tmp_path: Path
) -> None:
    """In folders that already exist."""
    for name in ("01_small", "02_small"):
        pool.copy_to(tmp_path / "page", outcome(read, name), [], STUDENTS)
    assert len(files(tmp_path / "page")) == 12


def test_a_character_without_a_font_is_the_courses_fault(
    read: Read, pool: HandoutPool, tmp_path: Path
) -> None:
    """With the same message as in one process, and nothing is copied."""
    made = outcome(read, "01_small")
    made.run.lesson.notebook.cells[-1].source = "print('\U00013000')"
    with pytest.raises(CourseError, match=r"no font of the handouts has the character"):
        pool.copy_to(tmp_path / "page", made, [], STUDENTS)
    assert not (tmp_path / "page").exists()


def test_a_killed_process_is_the_machines_fault(read: Read, tmp_path: Path) -> None:
    """The kernel does so if memory runs out; nothing hangs."""
    with HandoutPool() as pool:
        before = set(children())
        pool.submit(outcome(read, "01_small"), [])
        for child in set(children()) - before:
            child.kill()
        with pytest.raises(MachineError, match=r"handouts of 02_small: .* was killed"):
            pool.copy_to(tmp_path, outcome(read, "02_small"), [], STUDENTS)
        pool.copy_to(tmp_path, outcome(read, "03_small"), [], STUDENTS)  # as `--watch` goes on


class OddError(Exception):
    """An exception that pickle can't restore, as libraries have them."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class Trap(dict[str, Any]):
    """Answers that raise when a process asks for them."""

    def __contains__(self, key: object) -> bool:
        raise OddError("a", "bug")


def test_a_bug_is_not_the_machines_fault(read: Read, pool: HandoutPool, tmp_path: Path) -> None:
    """Its traceback is shown, even if pickle cannot restore it, and the pool goes on."""
    lesson = read(EXERCISE, expected=HALVES)
    made = Outcome(Run(lesson, lesson.defaults), Status.VERIFIED, notebook=lesson.notebook)
    with pytest.raises(RuntimeError, match="OddError: a bug"):
        pool.copy_to(tmp_path, replace(made, answers=Trap()), [], STUDENTS)
    pool.copy_to(tmp_path, outcome(read, "02_small"), [], STUDENTS)


def test_nothing_remains_at_its_end(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a process nor a file, even of handouts that were never copied. Only the server that
    forks the processes remains, for the next pool.

    Before that, another invocation leaves its files alone: it removes the folders of processes that
    were killed, and these are in use.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atomic, "LOCKED_AFTER_S", -1)
    forkserver.ensure_running()
    made, before = outcome(read, "01_small"), set(children())
    with HandoutPool() as pool:
        pool.copy_to(tmp_path / "first", made, [], STUDENTS)
        atomic.remove_abandoned_folders()
        pool.copy_to(tmp_path / "second", made, [], STUDENTS)
        assert set(children()) - before
        assert list(tmp_path.glob("pytorch-course-*"))
        pool.submit(outcome(read, "02_small"), [])
    assert files(tmp_path / "first") == files(tmp_path / "second")
    assert not set(children()) - before
    assert not list(tmp_path.glob("pytorch-course-*"))


ORPHANS = """\
import pickle, psutil, sys, time
from ci.handout.pool import HandoutPool
if __name__ == "__main__":
    with HandoutPool() as pool:
        pool.submit(pickle.load(open(sys.argv[1], "rb")), [])
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        time.sleep(60)
"""


def test_its_processes_end_with_a_killed_parent(read: Read, tmp_path: Path) -> None:
    """None of them waits for work that never comes."""
    (tmp_path / "outcome").write_bytes(pickle.dumps(outcome(read, "01_small")))
    (tmp_path / "parent.py").write_text(ORPHANS)
    command = [sys.executable, tmp_path / "parent.py", tmp_path / "outcome"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert pids
    assert eventually(lambda: not any(map(psutil.pid_exists, pids)), timeout_s=30)
