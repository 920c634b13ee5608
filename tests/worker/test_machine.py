"""Who is at fault for an exception of a lesson: the machine, or the lesson."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ci.lesson import reader
from ci.worker import machine
from ci.worker.machine import remedy
from ci.worker.notebook import Verdict, execute
from tests.conftest import ROOT, write_lesson

MACHINE = [
    "AcceleratorError: CUDA error: unknown error",
    "AcceleratorError: CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure'",
    "AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    "AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "AcceleratorError: CUDA error: all CUDA-capable devices are busy or unavailable",
    "AcceleratorError: CUDA error: no CUDA-capable device is detected",
    "AcceleratorError: CUDA error: no kernel image is available for execution on the device",
    "AcceleratorError: CUDA error: system not yet initialized",
    "AcceleratorError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
    "AcceleratorError: CUDA error: the launch timed out and was terminated",
    "RuntimeError: No CUDA GPUs are available",
    "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment",
    "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 304: OS call failed",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
    "RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp",
    "DistBackendError: NCCL error in: x.cpp:1, unhandled system error (run with NCCL_DEBUG=INFO)",
    "ProcessRaisedException: \n\n-- Process 1:\nAcceleratorError: CUDA error: unknown error",
]
LESSON = [
    "AcceleratorError: CUDA error: device-side assert triggered",
    "AcceleratorError: CUDA error: an illegal memory access was encountered",
    "AcceleratorError: CUDA error: invalid device ordinal",
    "AcceleratorError: CUDA error: operation not permitted when stream is capturing",
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 139.80 GiB.",
    "AssertionError: Torch not compiled with CUDA enabled",
    "RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
    "MemoryError: Unable to allocate 7.28 TiB for an array",
    "DistBackendError: NCCL error in: x.cpp:1, invalid usage: Duplicate GPU detected",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "ValueError: unknown error",
]


@pytest.mark.parametrize("error", MACHINE)
def test_a_lost_gpu_is_the_machines_fault(error: str) -> None:
    """With what to do, if the run has leased a GPU; else the lesson had no right to use CUDA."""
    assert remedy(error, gpus=True)
    assert not remedy(error, gpus=False)


@pytest.mark.parametrize("error", LESSON)
def test_a_mistake_or_too_large_a_size_is_the_lessons_fault(error: str) -> None:
    """Memory is a matter of the sizes that the lesson chooses."""
    assert not remedy(error, gpus=True)


@pytest.mark.parametrize(
    "error",
    [
        "OSError: [Errno 28] No space left on device: 'a.npy'",
        "RuntimeError: unable to write to file </torch_1_2_3>: No space left on device (28)",
        "OSError: [Errno 5] Input/output error",
    ],
)
def test_a_full_or_broken_disk_is_the_machines_fault(error: str) -> None:
    """On the CPU, too."""
    assert remedy(error, gpus=False)


OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12040)."
TORCH = """\
from types import SimpleNamespace
__version__, version = "2.13.0", SimpleNamespace(cuda={cuda!r})
def init():
    {init}
cuda = SimpleNamespace(init=init, device_count=lambda: {count})
"""
REFUSED = {
    "no driver": ("raise RuntimeError('Found no NVIDIA driver on your system.')", 0),
    "an old driver": (f"raise RuntimeError({OLD_DRIVER!r})", 2),
    "a broken driver": ("raise RuntimeError('CUDA unknown error - this may be due to')", 2),
    "something new": ("raise OSError('of the next CUDA')", 2),
    "an engine that ignores a part of the request": ("pass", 1),
}


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verdict]:
    """Execute a lesson that leased two GPUs, where torch answers like this; its verdict."""

    def execute_with(init: str, count: int, cuda: str | None = "13.0") -> Verdict:
        source = TORCH.format(init=init, count=count, cuda=cuda)
        for name in ("folder/torch.py", "driver"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder/torch.py").write_text(source)
        (tmp_path / "driver").write_text("NVRM version: NVIDIA UNIX x86_64  550.54.15  Release\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'folder'}{os.pathsep}{ROOT}")
        monkeypatch.setattr(machine, "DRIVER_VERSION", tmp_path / "driver")
        path = write_lesson(tmp_path, "# %%\nprint('the lesson')\n")
        variables = {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1"}
        return execute(reader.read(path), {}, variables=variables)

    return execute_with


@pytest.mark.kernel
@pytest.mark.parametrize(("init", "count"), REFUSED.values(), ids=REFUSED)
def test_a_lesson_does_not_start_without_its_gpus(
    torch: Callable[..., Verdict], init: str, count: int
) -> None:
    """The machine is at fault; the reason has the versions of the driver and of torch."""
    verdict = torch(init, count)
    assert verdict.machine_fault
    assert "(NVIDIA driver 550.54.15, torch " in verdict.reason
    assert not any(cell.get("outputs") for cell in verdict.notebook.cells)


@pytest.mark.kernel
def test_a_lesson_starts_with_its_gpus(torch: Callable[..., Verdict]) -> None:
    """The question leaves no trace: the lesson's first cell is number 1."""
    verdict = torch("pass", 2)
    assert (verdict.reason, verdict.machine_fault) == ("", False)
    counts = [cell.execution_count for cell in verdict.notebook.cells if "execution_count" in cell]
    assert counts == [1, 2, 3]


@pytest.mark.kernel
def test_a_cpu_build_is_not_asked(torch: Callable[..., Verdict]) -> None:
    """Its fault is found before."""
    assert torch("raise AssertionError", 0, cuda=None).reason == ""


@pytest.mark.kernel
def test_gpus_that_are_missing_are_counted(torch: Callable[..., Verdict]) -> None:
    """And the remedy names who did not give them."""
    reason = torch("pass", 1).reason
    assert reason.startswith("RuntimeError: CUDA shows 1 of 2 leased GPUs; the machine is at fault")
    assert reason.endswith("gave fewer GPUs than it was asked for: try invoke doctor")


def test_a_driver_without_a_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's driver has none."""
    monkeypatch.setattr(machine, "DRIVER_VERSION", Path("/nowhere"))
    assert machine.versions().startswith("NVIDIA driver of unknown version, torch 2.")
