"""Who is at fault for an exception of a lesson: the machine, or the lesson."""

import pytest

from ci.worker.machine import remedy

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
