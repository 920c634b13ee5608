"""lessons/parallel/train.py: a script that a student can take away, interrupt and resume."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.conftest import ROOT

SCRIPT = ROOT / "lessons" / "parallel" / "train.py"
EPOCHS = 30
STEPS = EPOCHS * 1024 // 64
OPTIONS = ["--dtype", "float64", "--epochs", str(EPOCHS)]


def torchrun(folder: Path, *options: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes of the script alone in a folder, in a session of their own.

    With restarts, torchrun only chooses the port of the processes, and another test may take it
    before they do; then they are restarted. Otherwise torchrun itself listens there.
    """
    if not (folder / "train.py").exists():
        shutil.copy(SCRIPT, folder)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [sys.executable, *command, f"--max-restarts={restarts}", "train.py", *options],
        cwd=folder,
        env={
            **os.environ,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": str(int(restarts > 0)),
            "PYTHONPATH": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What the script printed; it must have succeeded."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out


def test_the_process_group_ends_before_the_interpreter(tmp_path: Path) -> None:
    """Its threads could otherwise abort the process: github.com/pytorch/pytorch/issues/190489."""
    program = "import os, train; train.main(); print(len(os.listdir('/proc/self/task')))"
    environment = {
        **os.environ,
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": "0", "WORLD_SIZE": "1"},
        **{
            "RANK": "0",
            "LOCAL_RANK": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(SCRIPT.parent),
        },
    }
    command = [sys.executable, "-c", program, "--epochs", "1"]
    out = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert out.split()[-1] == "1"


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt")
    return state


def wait_for_steps(folder: Path) -> None:
    """Wait until the script has saved some steps."""
    end = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists() or checkpoint(folder)["step"] < 20:
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two checkpoints hold the same weights, to the last bit."""
    for name, weight in one["network"].items():
        assert torch.equal(weight, other["network"][name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(torchrun(folder, *OPTIONS))
    return checkpoint(folder)


def test_it_imports_only_torch_and_numpy() -> None:
    """Beyond the standard library, so that it runs wherever torch does."""
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text("utf-8"))))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]

    assert {name.split(".")[0] for name in modules} - sys.stdlib_module_names == {"numpy", "torch"}


@pytest.mark.kernel
def test_a_killed_run_resumes_to_the_same_weights(
    undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Everything is killed in the middle of training; the same command finishes it."""
    killed = torchrun(tmp_path, *OPTIONS)
    wait_for_steps(tmp_path)
    everything = [killed, *psutil.Process(killed.pid).children(recursive=True)]
    for process in everything:
        process.kill()
    killed.communicate(timeout=60)
    assert 0 < checkpoint(tmp_path)["step"] < STEPS

    finish(torchrun(tmp_path, *OPTIONS))

    assert checkpoint(tmp_path)["step"] == STEPS
    assert_equal(checkpoint(tmp_path), undisturbed)


@pytest.mark.kernel
def test_a_killed_rank_is_restarted(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """torchrun starts all processes again, and they go on from the last step."""
    process = torchrun(tmp_path, *OPTIONS, restarts=2)
    wait_for_steps(tmp_path)
    ranks = [
        child for child in psutil.Process(process.pid).children() if "train.py" in child.cmdline()
    ]
    ranks[1].send_signal(signal.SIGKILL)

    finish(process)

    assert_equal(checkpoint(tmp_path), undisturbed)


@pytest.mark.kernel
def test_the_loss_falls(tmp_path: Path) -> None:
    """Rank 0 prints one line per epoch, and a second run has nothing left to do."""
    lines = finish(torchrun(tmp_path, "--epochs", "12")).splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines]

    assert [line.split(":")[0] for line in lines] == [f"epoch {i}" for i in range(12)]
    assert losses[-1] < losses[0] / 3
    assert finish(torchrun(tmp_path, "--epochs", "12")) == ""


@pytest.mark.kernel
def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    """The message names the options, and nothing is saved."""
    process = torchrun(tmp_path, "--batch", "33")
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "--batch must divide --samples" in errors
    assert not (tmp_path / "checkpoint.pt").exists()
