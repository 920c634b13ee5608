"""lessons/parallel: what `launch` reports of ranks that fail, hang and die, and that they end."""

import signal
import time
from pathlib import Path

import pytest
from parallel import launch

from tests.lessons.rank_programs import (
    caller,
    die_on_rank_1,
    exit_on_rank_1,
    raise_on_rank_2,
    ranks_left,
    sleep_deaf,
    sleep_on_rank_1,
    wait_for_rank_1,
    wait_until,
)

LAUNCH_SLEEPERS = """
import sys, tempfile
from parallel import launch
from tests.lessons.rank_programs import echo, sleep_deaf
launch(echo, 1)
pids, tempfile.tempdir = sys.argv[1:]
launch(sleep_deaf, 2, pids)
"""


@pytest.mark.kernel
def test_an_error_names_its_rank_and_line() -> None:
    """The first failure is reported with its traceback, not what it caused in the other ranks."""
    with pytest.raises(RuntimeError) as raised:
        launch(raise_on_rank_2, 4)

    message = str(raised.value)
    assert message.startswith("rank 2 of 4 failed:")
    assert "in raise_on_rank_2" in message
    assert message.rstrip().endswith("KeyError: 'no such row'")


@pytest.mark.kernel
def test_a_quiet_exit_is_an_error() -> None:
    """A rank that ends itself with status 0 has not returned."""
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed:(.|\n)*SystemExit: 0"):
        launch(exit_on_rank_1, 2)


@pytest.mark.kernel
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_rank_is_named(how: signal.Signals) -> None:
    """A rank that a signal ends is named with the signal, not the ranks that missed it."""
    with pytest.raises(RuntimeError, match=rf"^rank 1 of 3 was ended by {how.name}$"):
        launch(die_on_rank_1, 3, int(how))


@pytest.mark.kernel
def test_a_hang_outside_a_collective_is_located(tmp_path: Path) -> None:
    """At the deadline the late rank is named with the line where it stands, and ended."""
    began = time.monotonic()
    with pytest.raises(TimeoutError) as raised:
        launch(sleep_on_rank_1, 3, str(tmp_path), timeout_s=2.0)

    message = str(raised.value)
    assert message.startswith("rank 1 of 3 has not returned after 2 s; it is in\n")
    assert "in sleep_on_rank_1" in message
    assert "rank 0" not in message and "rank 2" not in message
    assert time.monotonic() - began < 20
    assert ranks_left(tmp_path) == []


@pytest.mark.kernel
def test_a_hang_inside_a_collective_is_located(tmp_path: Path) -> None:
    """Where one rank keeps the others waiting, the message tells the waiting from the cause."""
    with pytest.raises(TimeoutError) as raised:
        launch(wait_for_rank_1, 2, str(tmp_path), timeout_s=2.0)

    waiting, cause = str(raised.value).split("rank 1 of 2")
    assert waiting.startswith("rank 0 of 2") and "in all_reduce" in waiting
    assert "in sleep_on_rank_1" in cause and "in all_reduce" not in cause
    assert ranks_left(tmp_path) == []


@pytest.mark.kernel
def test_deaf_ranks_end_at_the_deadline(tmp_path: Path) -> None:
    """Ranks that ignore SIGTERM and SIGINT end all the same."""
    with pytest.raises(TimeoutError):
        launch(sleep_deaf, 2, str(tmp_path), timeout_s=2.0)

    assert len(list(tmp_path.iterdir())) == 2
    assert ranks_left(tmp_path) == []


@pytest.mark.kernel
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ranks_end_with_their_caller(tmp_path: Path, how: signal.Signals) -> None:
    """When a signal ends the caller's process, its ranks and files are gone within 2 s."""
    pids, files = tmp_path / "pids", tmp_path / "files"
    pids.mkdir(), files.mkdir()
    process = caller(LAUNCH_SLEEPERS, str(pids), str(files))
    assert wait_until(lambda: len(list(pids.iterdir())) == 2, 120)
    assert len(ranks_left(pids)) == 2
    assert len(list(files.iterdir())) == 1

    process.send_signal(how)

    assert wait_until(lambda: not ranks_left(pids) and not list(files.iterdir()), 2.0)
    process.communicate(timeout=30)
