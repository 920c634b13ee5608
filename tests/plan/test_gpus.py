"""`--gpus`, the GPUs of this machine, and leases."""

from pathlib import Path

import pytest

from ci.errors import MachineError, UsageError
from ci.machine import program
from ci.plan import gpus
from ci.plan.gpus import Gpu

FOUR = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(4)]


@pytest.mark.parametrize(
    ("text", "indices"),
    [("auto", "0123"), ("all", "0123"), ("none", ""), ("2", "01"), ("device=3,1", "31")],
)
def test_a_request_allows_gpus(text: str, indices: str) -> None:
    """Each form of --gpus names the GPUs that may be leased."""
    request = gpus.parse(text)
    granted = () if text == "none" else gpus.select(request, FOUR)
    assert "".join(gpu.index for gpu in granted) == indices


def test_an_id_may_be_a_uuid() -> None:
    """device=GPU-2 is the GPU of that UUID."""
    assert gpus.select(gpus.parse("device=GPU-2"), FOUR) == (FOUR[2],)


@pytest.mark.parametrize("text", ["", "0", "-1", "some", "device=", "device=0,,1", "device=1,1"])
def test_a_malformed_request_is_refused(text: str) -> None:
    """It is the command line's fault."""
    with pytest.raises(UsageError, match="--gpus"):
        gpus.parse(text)


@pytest.mark.parametrize("text", ["5", "device=7"])
def test_more_gpus_than_the_machine_has_is_its_fault(text: str) -> None:
    """A number or an id of GPUs is strict."""
    with pytest.raises(MachineError, match="this machine has 4"):
        gpus.select(gpus.parse(text), FOUR)


@pytest.mark.parametrize("text", ["auto", "all"])
def test_without_gpus_runs_use_the_cpu(text: str) -> None:
    """auto and all request the GPUs that exist."""
    assert gpus.select(gpus.parse(text), []) == ()


TWO = """\
echo "GPU 0: NVIDIA H100 (UUID: GPU-aa)"
echo "GPU 1: NVIDIA H100 (UUID: GPU-bb)"
"""


def _nvidia_smi(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_the_driver_lists_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index, UUID and name come from nvidia-smi."""
    _nvidia_smi(tmp_path, TWO)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.uuid for gpu in gpus.detect()] == ["GPU-aa", "GPU-bb"]


def test_a_driver_that_hangs_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says what to do; only --gpus none does not ask the driver."""
    _nvidia_smi(tmp_path, "sleep 600")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(program, "TIMEOUT_S", 0.5)
    with pytest.raises(MachineError, match="^nvidia-smi gave no answer in 0.5 s: the driver hangs"):
        gpus.grant(gpus.parse("auto"))
    assert gpus.grant(gpus.parse("none")) == ()
    assert gpus.query("driver_version") == {}


def test_a_scheduler_limits_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs are those of CUDA_VISIBLE_DEVICES."""
    _nvidia_smi(tmp_path, TWO)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.uuid for gpu in gpus.detect()] == ["GPU-bb"]


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [(" 1, 0", "ba"), ("GPU-b", "b"), ("01", "b"), ("", ""), ("-1", ""), ("0,-1,1", "a")],
)
def test_the_schedulers_limit_is_read_as_cuda_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, seen: str
) -> None:
    """Indices, beginnings of UUIDs, and nothing after a -1."""
    _nvidia_smi(tmp_path, TWO)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert "".join(gpu.uuid[-1] for gpu in gpus.detect()) == seen


@pytest.mark.parametrize("allowed", ["7", "MIG-1", "0,0", "GPU-"])
def test_a_limit_that_names_no_gpu_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """Runs must not fall back to the CPU silently."""
    _nvidia_smi(tmp_path, TWO)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    with pytest.raises(MachineError, match="^CUDA_VISIBLE_DEVICES="):
        gpus.detect()


def test_one_gpu_by_two_names_is_one() -> None:
    """A lease of two GPUs must have two."""
    with pytest.raises(UsageError, match="twice"):
        gpus.select(gpus.parse("device=0,GPU-0"), FOUR)


LISTING = """\
GPU 0: NVIDIA A100 (UUID: GPU-a)
  MIG 1g.5gb      Device  0: (UUID: MIG-1)
  MIG 2g.10gb     Device  1: (UUID: MIG-2)
GPU 1: NVIDIA A100 (UUID: GPU-b)
"""


def listed(folder: Path, monkeypatch: pytest.MonkeyPatch, listing: str) -> list[Gpu]:
    """The GPUs of a machine where `nvidia-smi -L` prints this."""
    (folder / "listing").write_text(listing)
    _nvidia_smi(folder, f"cat {folder}/listing")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return gpus.detect()


def test_slices_stand_in_for_a_gpu_that_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are leased like GPUs; CUDA cannot use the GPU itself."""
    found = [(gpu.index, gpu.uuid, gpu.name) for gpu in listed(tmp_path, monkeypatch, LISTING)]
    assert found == [
        ("0:0", "MIG-1", "NVIDIA A100 MIG 1g.5gb"),
        ("0:1", "MIG-2", "NVIDIA A100 MIG 2g.10gb"),
        ("1", "GPU-b", "NVIDIA A100"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error",
        "GPU 1: NVIDIA H100 (UUID: [N/A])",
        "GPU 1: NVIDIA H100 (UUID: GPU-a)",
        "\x00\ufffd",
    ],
)
def test_a_gpu_that_cannot_be_read_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """It must not be left out silently."""
    with pytest.raises(MachineError, match="^nvidia-smi -L"):
        listed(tmp_path, monkeypatch, f"GPU 0: NVIDIA H100 (UUID: GPU-a)\n{line}\n")
