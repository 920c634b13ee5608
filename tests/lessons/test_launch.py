"""lessons/parallel: what `launch` promises, with real ranks that return."""

import tempfile
from pathlib import Path

import pytest
import torch
from parallel import launch

from tests.lessons.rank_programs import caller, echo, raise_on_rank_2, rank_program, threads


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
