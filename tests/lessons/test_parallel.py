"""lessons/parallel: what `launch` promises, with real ranks that return, fail, hang and die; and
that each way of parallel training computes what one device computes, in NumPy."""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from parallel import launch


def rank_program(module: str, name: str) -> Callable[..., Any]:
    """A rank program of the lessons. Its module imports half of torch, which other tests lack."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"parallel.{module}"), name)
    return found


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


def fail_in_stage_1(device: torch.device, folder: str, *task: Any) -> None:
    (Path(folder) / str(os.getpid())).touch()
    if dist.get_rank() == 1:
        raise ArithmeticError("a stage that fails")
    rank_program("pipeline", "train_by_hand")(device, *task)


def schedule_unevenly(device: torch.device, folder: str, *task: Any) -> None:
    (Path(folder) / str(os.getpid())).touch()
    rank_program("pipeline", "train_by_torch")(device, *task)


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


Matrices = list[NDArray[np.float64]]


class Problem:
    """A network and a batch, drawn by `rows`, and gradient descent on them by hand."""

    def __init__(self, sizes: list[int], rows: int, *, tanh_at_end: bool, dtype: str) -> None:
        rng = np.random.default_rng(rows)
        shapes = zip(sizes[1:], sizes[:-1], strict=True)
        self.matrices: Matrices = [rng.uniform(-1, 1, shape) / shape[1] ** 0.5 for shape in shapes]
        self.x, self.y = rng.uniform(-1, 1, (rows, sizes[0])), rng.choice([-1.0, 1.0], (rows, 1))
        self.tanh_at_end = tanh_at_end
        self.dtype: torch.dtype = getattr(torch, dtype)

    def task(self) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Weights, rows and targets, as a rank program takes them."""
        tensors = [torch.tensor(array, dtype=self.dtype) for array in (self.x, self.y)]
        weights = self.named([torch.tensor(W, dtype=self.dtype) for W in self.matrices])
        return weights, tensors[0], tensors[1]

    def descend(self, steps: int, lr: float) -> tuple[NDArray[np.float64], Matrices, Matrices]:
        """Outputs and gradients of the first step, and the weights after the last one."""
        matrices = self.matrices
        for _ in range(steps):
            found = self.differentiate(matrices)[1]
            matrices = [W - lr * gradient for W, gradient in zip(matrices, found, strict=True)]
        return *self.differentiate(self.matrices), matrices

    def differentiate(self, matrices: Matrices) -> tuple[NDArray[np.float64], Matrices]:
        """The outputs, and the gradients of the mean squared error, by the chain rule."""
        values = [self.x]
        bent = [True] * (len(matrices) - 1) + [self.tanh_at_end]
        for matrix, bend in zip(matrices, bent, strict=True):
            product = values[-1] @ matrix.T
            values.append(np.tanh(product) if bend else product)
        d, found = 2 / len(self.x) * (values[-1] - self.y), []
        for i in reversed(range(len(matrices))):
            d = d * (1 - values[i + 1] ** 2) if bent[i] else d
            found.insert(0, d.T @ values[i])
            d = d @ matrices[i]
        return values[-1], found

    @staticmethod
    def named(matrices: list[Any]) -> dict[str, Any]:
        return {f"W{i}": matrix for i, matrix in enumerate(matrices, 1)}

    def assert_close(self, shown: dict[str, torch.Tensor], expected: Matrices) -> None:
        """Each tensor is right, relative to its largest element, and none is missing."""
        assert list(shown) == list(self.named(expected))
        for tensor, array in zip(shown.values(), expected, strict=True):
            assert tensor.dtype == self.dtype and tensor.shape == array.shape
            tolerance = 1e-12 if self.dtype == torch.float64 else 5e-6
            difference = np.abs(tensor.double().numpy() - array).max()
            assert difference <= tolerance * np.abs(array).max()


LAUNCH_SLEEPERS = """
import sys, tempfile
from parallel import launch
from tests.lessons.test_parallel import echo, sleep_deaf
launch(echo, 1)
pids, tempfile.tempdir = sys.argv[1:]
launch(sleep_deaf, 2, pids)
"""


@pytest.mark.kernel
def test_results_come_back_in_rank_order() -> None:
    """`launch` returns what each rank returned, at the rank's place."""
    results = launch(echo, 4, "a", {"b": 1})

    assert [(rank, ("a", {"b": 1})) for rank in range(4)] == results


@pytest.mark.kernel
def test_tensors_travel_as_copies() -> None:
    """A tensor goes to the ranks and comes back with all its bits, and not as shared memory."""
    sent = torch.randn(5, 3, dtype=torch.float64)

    returned = [arguments[0] for _, arguments in launch(echo, 2, sent)]

    assert all(torch.equal(sent, tensor) for tensor in returned)
    assert not any(tensor.is_shared() for tensor in [sent, *returned])


@pytest.mark.kernel
def test_each_rank_has_one_thread() -> None:
    """Ranks don't fight for the cores."""
    assert launch(threads, 2) == [1, 1]


@pytest.mark.kernel
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


@pytest.mark.kernel
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


@pytest.mark.kernel
def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder through which ranks and caller talk goes with the launch, failed or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    launch(echo, 2)
    with pytest.raises(RuntimeError):
        launch(raise_on_rank_2, 3)

    assert list(tmp_path.glob("ranks-*")) == []


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


@pytest.mark.kernel
def test_two_hundred_launches_in_a_row() -> None:
    """DDP and its process group come and go without ever hanging, and always agree."""
    weights = {"W1": torch.randn(8, 4), "W2": torch.randn(1, 8)}
    x, y = torch.randn(7, 4), torch.randn(7, 1)

    trained = [
        launch(
            rank_program("data_parallel", "train"),
            2 + number % 2,
            weights,
            x,
            y,
            2,
            0.1,
            timeout_s=30.0,
        )
        for number in range(200)
    ]

    weights_of = [[after["W1"] for _, after in ranks] for ranks in trained]
    assert all(torch.equal(one, ranks[0]) for ranks in weights_of for one in ranks)


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("rows", [3, 8, 23])
def test_weighted_gradients_are_those_of_the_whole_batch(world_size: int, rows: int) -> None:
    """For each split, also with an empty rank, DDP gives the gradient of one device."""
    double = {"dtype": torch.float64}
    weights = {"W1": torch.randn(8, 4, **double), "W2": torch.randn(1, 8, **double)}
    x, y = torch.randn(rows, 4, **double), torch.randn(rows, 1, **double)
    first, second = (weight.clone().requires_grad_() for weight in weights.values())
    ((torch.tanh(x @ first.T) @ second.T - y) ** 2).mean().backward()

    program = rank_program("data_parallel", "ddp_gradients")

    for _, gradients in launch(program, world_size, weights, x, y, True):
        torch.testing.assert_close(gradients["W1"], first.grad, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(gradients["W2"], second.grad, rtol=1e-12, atol=1e-15)


def deep(rows: int, dtype: str = "float64") -> Problem:
    """Eight layers, as many as the most stages of the lesson."""
    return Problem([3, *[6] * 7, 1], rows, tanh_at_end=True, dtype=dtype)


def shallow(rows: int, dtype: str = "float64") -> Problem:
    """Two layers, with hidden units that few worlds share evenly."""
    return Problem([3, 11, 1], rows, tanh_at_end=False, dtype=dtype)


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "dtype"), [(3, "float64"), (23, "float64"), (8, "float32")])
def test_stages_compute_what_one_device_computes(world_size: int, rows: int, dtype: str) -> None:
    """Outputs, gradients and weights, for any cut of layers and rows, uneven ones too."""
    problem = deep(rows, dtype)
    out, found, trained = problem.descend(3, 0.1)
    task = (*problem.task(), min(4, rows), 3, 0.1)

    ranks = launch(rank_program("pipeline", "train_by_hand"), world_size, *task)

    assert [outputs is None for outputs, *_ in ranks] == [True] * (world_size - 1) + [False]
    problem.assert_close({"W1": ranks[-1][0]}, [out])
    problem.assert_close({name: g for _, each, _ in ranks for name, g in each.items()}, found)
    problem.assert_close({name: W for *_, each in ranks for name, W in each.items()}, trained)


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "dtype"), [(4, "float64"), (20, "float64"), (8, "float32")])
def test_the_schedule_computes_what_one_device_computes(
    world_size: int, rows: int, dtype: str
) -> None:
    """torch's GPipe on our stages, where the microbatches are equally large."""
    problem = deep(rows, dtype)
    out, found, trained = problem.descend(3, 0.1)

    ranks = launch(
        rank_program("pipeline", "train_by_torch"), world_size, *problem.task(), 4, 3, 0.1
    )

    problem.assert_close({"W1": ranks[-1][0]}, [out])
    problem.assert_close({name: g for _, each, _ in ranks for name, g in each.items()}, found)
    problem.assert_close({name: W for *_, each in ranks for name, W in each.items()}, trained)


@pytest.mark.kernel
def test_a_cut_between_layers_changes_no_bit() -> None:
    """Without microbatches the stages do the very operations of one device, in its order."""
    task = (*deep(23, "float32").task(), 1, 3, 0.1)

    worlds = [
        launch(rank_program("pipeline", "train_by_hand"), world_size, *task)
        for world_size in (1, 3)
    ]

    one, three = ({n: W for *_, each in ranks for n, W in each.items()} for ranks in worlds)
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert torch.equal(worlds[0][-1][0], worlds[1][-1][0])


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "dtype"), [(3, "float64"), (23, "float64"), (8, "float32")])
def test_slices_compute_what_one_device_computes(world_size: int, rows: int, dtype: str) -> None:
    """Each rank has the whole output, and the slices put together are the whole matrices."""
    problem = shallow(rows, dtype)
    out, found, trained = problem.descend(3, 0.1)

    ranks = launch(
        rank_program("tensor_parallel", "train_by_hand"), world_size, *problem.task(), 3, 0.1
    )

    for outputs, *_ in ranks:
        problem.assert_close({"W1": outputs}, [out])
    for i, expected in ((1, found), (2, trained)):
        first = torch.cat([each[i]["W1"] for each in ranks], dim=0)
        second = torch.cat([each[i]["W2"] for each in ranks], dim=1)
        problem.assert_close({"W1": first, "W2": second}, expected)


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "dtype"), [(3, "float64"), (23, "float64"), (8, "float32")])
def test_a_plan_computes_what_one_device_computes(world_size: int, rows: int, dtype: str) -> None:
    """`parallelize_module`, with uneven slices too: the same on each rank, and right."""
    problem = shallow(rows, dtype)
    out, found, trained = problem.descend(3, 0.1)

    for outputs, *others in launch(
        rank_program("tensor_parallel", "train_by_torch"), world_size, *problem.task(), 3, 0.1
    ):
        problem.assert_close({"W1": outputs}, [out])
        problem.assert_close(others[0], found)
        problem.assert_close(others[1], trained)


@pytest.mark.kernel
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "dtype"), [(3, "float64"), (23, "float64"), (8, "float32")])
def test_shards_compute_what_one_device_computes(world_size: int, rows: int, dtype: str) -> None:
    """FSDP, weighted: uneven rows, no rows at all; and the ranks hold the weights once."""
    problem = shallow(rows, dtype)
    _, found, trained = problem.descend(3, 0.1)

    ranks = launch(rank_program("sharded", "train_sharded"), world_size, *problem.task(), 3, 0.1)

    assert sum(held for held, *_ in ranks) == sum(W.size for W in problem.matrices)
    for _, gradients, weights in ranks:
        problem.assert_close(gradients, found)
        problem.assert_close(weights, trained)


@pytest.mark.kernel
def test_a_stage_that_fails_ends_the_others(tmp_path: Path) -> None:
    """The stages before and after it wait for a message in vain; they end, and it is named."""
    task = (*deep(8).task(), 4, 3, 0.1)

    with pytest.raises(RuntimeError, match=r"^rank 1 of 3 failed:(.|\n)*a stage that fails"):
        launch(fail_in_stage_1, 3, str(tmp_path), *task)

    assert len(list(tmp_path.iterdir())) == 3
    assert ranks_left(tmp_path) == []


@pytest.mark.kernel
def test_uneven_microbatches_of_a_schedule_end_in_time(tmp_path: Path) -> None:
    """torch's schedule can't send microbatches of two sizes: an error, and nothing is left."""
    task = (*deep(23).task(), 4, 1, 0.1)

    with pytest.raises((RuntimeError, TimeoutError)):
        launch(schedule_unevenly, 2, str(tmp_path), *task, timeout_s=10.0)

    assert len(list(tmp_path.iterdir())) == 2
    assert ranks_left(tmp_path) == []


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
