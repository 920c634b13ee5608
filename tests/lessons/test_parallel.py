"""lessons/parallel: each way of parallel training computes what one device computes, in NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parallel import launch

from tests.lessons.rank_programs import fail_in_stage_1, rank_program, ranks_left, schedule_unevenly

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
