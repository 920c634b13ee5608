"""lessons/parallel: what `launch` promises, with real ranks that return, fail, hang and die."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from parallel import data_parallel, launch

# Rank programs. Ranks import them from this file.


def echo(device: torch.device, *arguments: Any) -> tuple[int, tuple[Any, ...]]:
    return dist.get_rank(), arguments


def threads(device: torch.device) -> int:
    return torch.get_num_threads()


def raise_on_rank_2(device: torch.device) -> None:
    if dist.get_rank() == 2:
        raise KeyError("no such row")
    dist.barrier()


def exit_on_rank_1(device: torch.device) -> None:
    if dist.get_rank() == 1:
        sys.exit(0)
    dist.barrier()


def die_on_rank_1(device: torch.device, how: int) -> None:
    if dist.get_rank() == 1:
        os.kill(os.getpid(), how)
    dist.barrier()


def sleep_on_rank_1(device: torch.device, folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    if dist.get_rank() == 1:
        time.sleep(1000)


def wait_for_rank_1(device: torch.device, folder: str) -> None:
    sleep_on_rank_1(device, folder)
    dist.all_reduce(torch.ones(1))


def sleep_deaf(device: torch.device, folder: str) -> None:
    """Sleep, and heed no signal that can be ignored."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(1000)


def ranks_left(folder: Path) -> list[int]:
    """The processes that left their number in `folder` and still run."""

    def runs(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in (int(path.name) for path in folder.iterdir()) if runs(pid)]


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def caller(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process of its own, in a process group of its own, that can launch ranks."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


LAUNCH_SLEEPERS = """
import sys, tempfile
from parallel import launch
from test_parallel import echo, sleep_deaf
launch(echo, 1)
pids, tempfile.tempdir = sys.argv[1:]
launch(sleep_deaf, 2, pids)
"""


@pytest.mark.slow
def test_results_come_back_in_rank_order() -> None:
    """`launch` returns what each rank returned, at the rank's place."""
    results = launch(echo, 4, "a", {"b": 1})

    assert [(rank, ("a", {"b": 1})) for rank in range(4)] == results


@pytest.mark.slow
def test_tensors_travel_as_copies() -> None:
    """A tensor goes to the ranks and comes back with all its bits, and not as shared memory."""
    sent = torch.randn(5, 3, dtype=torch.float64)

    returned = [arguments[0] for _, arguments in launch(echo, 2, sent)]

    assert all(torch.equal(sent, tensor) for tensor in returned)
    assert not any(tensor.is_shared() for tensor in [sent, *returned])


@pytest.mark.slow
def test_each_rank_has_one_thread() -> None:
    """Ranks don't fight for the cores."""
    assert launch(threads, 2) == [1, 1]


@pytest.mark.slow
def test_a_rank_runs_its_program_as_the_file_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student edits a rank program, launches again in the same kernel, and sees the change."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "edited_program.py"
    module.write_text("def answer(device):\n    return 1\n")
    program = __import__("edited_program").answer
    before = launch(program, 1)
    module.write_text("def answer(device):\n    return 1 + 1\n")

    assert (before, launch(program, 1)) == ([1], [2])


@pytest.mark.slow
def test_nothing_is_printed() -> None:
    """No warning of the launcher, the backend or DDP reaches the notebook."""
    code = """
import torch
from parallel import data_parallel, launch
weights = {"W1": torch.ones(8, 3), "W2": torch.ones(1, 8)}
launch(data_parallel.train, 2, weights, torch.ones(5, 3), torch.ones(5, 1), 2, 0.1)
"""
    process = caller(code)

    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder through which ranks and caller talk goes with the launch, failed or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    launch(echo, 2)
    with pytest.raises(RuntimeError):
        launch(raise_on_rank_2, 3)

    assert list(tmp_path.glob("ranks-*")) == []


@pytest.mark.slow
def test_an_error_names_its_rank_and_line() -> None:
    """The first failure is reported with its traceback, not what it caused in the other ranks."""
    with pytest.raises(RuntimeError) as raised:
        launch(raise_on_rank_2, 4)

    message = str(raised.value)
    assert message.startswith("rank 2 of 4 failed:")
    assert "in raise_on_rank_2" in message
    assert message.rstrip().endswith("KeyError: 'no such row'")


@pytest.mark.slow
def test_a_quiet_exit_is_an_error() -> None:
    """A rank that ends itself with status 0 has not returned."""
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed:(.|\n)*SystemExit: 0"):
        launch(exit_on_rank_1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_rank_is_named(how: signal.Signals) -> None:
    """A rank that a signal ends is named with the signal, not the ranks that missed it."""
    with pytest.raises(RuntimeError, match=rf"^rank 1 of 3 was ended by {how.name}$"):
        launch(die_on_rank_1, 3, int(how))


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_hang_inside_a_collective_is_located(tmp_path: Path) -> None:
    """Where one rank keeps the others waiting, the message tells the waiting from the cause."""
    with pytest.raises(TimeoutError) as raised:
        launch(wait_for_rank_1, 2, str(tmp_path), timeout_s=2.0)

    waiting, cause = str(raised.value).split("rank 1 of 2")
    assert waiting.startswith("rank 0 of 2") and "in all_reduce" in waiting
    assert "in sleep_on_rank_1" in cause and "in all_reduce" not in cause
    assert ranks_left(tmp_path) == []


@pytest.mark.slow
def test_deaf_ranks_end_at_the_deadline(tmp_path: Path) -> None:
    """Ranks that ignore SIGTERM and SIGINT end all the same."""
    with pytest.raises(TimeoutError):
        launch(sleep_deaf, 2, str(tmp_path), timeout_s=2.0)

    assert len(list(tmp_path.iterdir())) == 2
    assert ranks_left(tmp_path) == []


@pytest.mark.slow
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


@pytest.mark.slow
def test_fifty_launches_in_a_row() -> None:
    """DDP and its process group come and go without ever hanging, and always agree."""
    weights = {"W1": torch.randn(8, 4), "W2": torch.randn(1, 8)}
    x, y = torch.randn(7, 4), torch.randn(7, 1)

    trained = [
        launch(data_parallel.train, 2 + number % 2, weights, x, y, 2, 0.1, timeout_s=30.0)
        for number in range(50)
    ]

    assert all(torch.equal(one["W1"], ranks[0]["W1"]) for ranks in trained for one in ranks)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("rows", [3, 8, 23])
def test_weighted_gradients_are_those_of_the_whole_batch(world_size: int, rows: int) -> None:
    """Whatever the split, with an empty rank too, DDP gives the gradient of one device."""
    double = {"dtype": torch.float64}
    weights = {"W1": torch.randn(8, 4, **double), "W2": torch.randn(1, 8, **double)}
    x, y = torch.randn(rows, 4, **double), torch.randn(rows, 1, **double)
    first, second = (weight.clone().requires_grad_() for weight in weights.values())
    ((torch.tanh(x @ first.T) @ second.T - y) ** 2).mean().backward()

    ranks = launch(data_parallel.ddp_gradients, world_size, weights, x, y)

    for gradients in ranks:
        torch.testing.assert_close(gradients["W1"], first.grad, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(gradients["W2"], second.grad, rtol=1e-12, atol=1e-15)


def test_a_world_has_a_rank() -> None:
    """A world without ranks is refused."""
    with pytest.raises(ValueError, match="at least one rank"):
        launch(echo, 0)


def test_more_ranks_than_gpus() -> None:
    """Each rank needs a GPU of its own; where one is missing, the message counts them."""
    found = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"{found + 1} GPUs, and there are {found}"):
        launch(echo, found + 1, device="cuda")


def test_a_program_from_a_notebook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks can't import what a cell defines, and the error says where to put it."""
    monkeypatch.setattr(echo, "__module__", "__main__")
    with pytest.raises(ValueError, match="echo must be in a module"):
        launch(echo, 2)
