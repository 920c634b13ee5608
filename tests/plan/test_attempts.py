"""Attempts: complete ones stay, incomplete ones are removed."""

import subprocess
import sys
from pathlib import Path

import pytest

from ci.plan import attempts, planner
from tests.conftest import Read


def test_incomplete_attempts_are_swept(read: Read, tmp_path: Path) -> None:
    """No matter which process began them: one invocation uses a checkout at a time."""
    run = planner.Run(read(), {})
    incomplete, complete = (attempts.begin(run, tmp_path / "runs") for _ in range(2))
    complete = attempts.complete(complete)
    attempts.remove_incomplete(tmp_path / "runs")
    assert (incomplete.exists(), complete.exists()) == (False, True)


def test_a_linked_folder_is_not_swept(tmp_path: Path) -> None:
    """A lesson could have planted the link."""
    (tmp_path / "elsewhere" / ".hidden").mkdir(parents=True)
    (tmp_path / "runs" / "01_small").mkdir(parents=True)
    (tmp_path / "runs" / "01_small" / "key").symlink_to(tmp_path / "elsewhere")
    attempts.remove_incomplete(tmp_path / "runs")
    assert (tmp_path / "elsewhere" / ".hidden").exists()


def test_the_last_attempt_is_the_last_by_name(read: Read, tmp_path: Path) -> None:
    """Also if the clock was set back, once or more often; none is removed as the oldest."""
    run, folder = planner.Run(read(), {}), tmp_path / "runs"
    future = attempts.begin(run, folder)
    future = attempts.complete(future.rename(future.with_name(".29990101T000000.000000-1")))
    later = [attempts.complete(attempts.begin(run, folder)) for _ in range(11)]
    assert attempts.complete_attempts(later[0].parent) == [future, *later]


def test_bytecode_is_removed(tmp_path: Path) -> None:
    """A helper of the same size and date would be executed as it was before."""
    source, elsewhere = tmp_path / "parallel" / "ring.py", tmp_path / "a" / "b" / "__pycache__"
    elsewhere.mkdir(parents=True)
    (source.parent / "__pycache__").mkdir(parents=True)
    source.write_text("a = 1")
    attempts.remove_bytecode(tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    assert source.exists()


def test_runs_write_no_bytecode(read: Read) -> None:
    """Neither kernels nor ranks nor other programs that they start."""
    assert planner.Run(read(), {}).environment["PYTHONDONTWRITEBYTECODE"] == "1"


LEFT = {
    "thousands of nested folders": "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
    "a folder without rights": "import os; os.mkdir('a'); open('a/b', 'w'); os.chmod('a', 0)",
    "a pipe and a socket": (
        "import os, socket; os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('socket')"
    ),
    "no rights on the attempt": "import os; open('x', 'w').close(); os.chmod('.', 0)",
}


@pytest.mark.parametrize("code", LEFT.values(), ids=LEFT)
def test_what_a_lesson_leaves_in_its_attempt_is_removed(
    read: Read, tmp_path: Path, code: str
) -> None:
    """So that it does not harm later runs."""
    attempt = attempts.begin(planner.Run(read(), {}), tmp_path / "runs")
    subprocess.run([sys.executable, "-c", code], cwd=attempt, check=True)
    assert attempts.tidy(attempt) is None
    assert [*attempt.iterdir()] == []


def test_a_long_log_is_cut(read: Read, tmp_path: Path) -> None:
    """A lesson may write gigabytes of it; its beginning is kept."""
    attempt = attempts.begin(planner.Run(read(), {}), tmp_path / "runs")
    (attempt / attempts.LOG).write_bytes(b"x" * (attempts.LONGEST_LOG + 1))
    attempts.tidy(attempt)
    assert (attempt / attempts.LOG).stat().st_size == attempts.LONGEST_LOG


def test_a_usual_attempt_does_not_fill_the_disk(read: Read, tmp_path: Path) -> None:
    """Nor one that is gone."""
    attempt = attempts.begin(planner.Run(read(), {}), tmp_path / "runs")
    (attempt / "folder").mkdir()
    (attempt / attempts.LOG).write_text("a line")
    (attempt / "nowhere").symlink_to("/")
    assert attempts.excess(attempt) == attempts.excess(tmp_path / "gone") == ""


def test_an_attempt_has_few_files(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders count, too: each needs an inode of the disk."""
    monkeypatch.setattr(attempts, "MOST_FILES", 3)
    attempt = attempts.begin(planner.Run(read(), {}), tmp_path / "runs")
    (attempt / "a" / "b").mkdir(parents=True)
    (attempt / "a" / "c").touch()
    assert attempts.excess(attempt) == ""
    (attempt / "a" / "b" / "d").touch()
    assert attempts.excess(attempt) == "it leaves more than 3 files in its attempt"


def test_an_attempt_is_small(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its files take on the disk counts, and not the size of a sparse file."""
    monkeypatch.setattr(attempts, "MOST_BYTES", 2**20)
    attempt = attempts.begin(planner.Run(read(), {}), tmp_path / "runs")
    with (attempt / "sparse").open("wb") as file:
        file.truncate(2**22)
    assert attempts.excess(attempt) == ""
    (attempt / attempts.LOG).write_bytes(b"x" * 2**21)
    assert attempts.excess(attempt).startswith("its files and its log take more than")
