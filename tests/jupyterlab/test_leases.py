"""The GPUs of `invoke lab`, by a replacement of nvidia-smi, where no Docker engine answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ci.errors import MachineError
from ci.execute import leases
from ci.execute.leases import GpuPool
from ci.jupyterlab import server
from ci.plan import gpus
from tests.conftest import DOCKER, ROOT

Open = Callable[[str], None]


@pytest.fixture
def open_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a lab on a machine with two GPUs; it gets as far as the engine."""
    tool = tmp_path / "nvidia-smi"
    lines = "".join(f"echo 'GPU {i}: NVIDIA H100 (UUID: GPU-{i})'\n" for i in range(2))
    tool.write_text(f"#!/bin/sh\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")

    def start(request: str) -> None:
        lab = server.serve(ROOT / "lessons", tmp_path / "lab", DOCKER, port="8888", gpus=request)
        next(lab)

    return start


@pytest.mark.parametrize("words", ["auto", "1", "device=1"])
def test_a_lab_takes_a_free_gpu(open_lab: Open, words: str) -> None:
    """It gets as far as the engine although another lab or run has leased a GPU."""
    lease = GpuPool(gpus.detect()[:1]).lease(gpus.detect()[:1])
    assert lease
    with pytest.raises(MachineError, match="no Docker engine answers"):
        open_lab(words)
    lease.close()


@pytest.mark.parametrize("words", ["2", "all", "device=0"])
def test_a_lab_never_takes_a_gpu_that_is_leased(open_lab: Open, words: str) -> None:
    """The message says so, before anything starts."""
    lease = GpuPool(gpus.detect()[:1]).lease(gpus.detect()[:1])
    assert lease
    with pytest.raises(MachineError, match=f"^--gpus {words}: runs or other labs"):
        open_lab(words)
    lease.close()
