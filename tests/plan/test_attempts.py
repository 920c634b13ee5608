"""Attempts: complete ones stay, incomplete ones are removed."""

from pathlib import Path

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
