"""Which exceptions of a lesson are the machine's fault, and what to do about them.

Memory is the lesson's: one that needs more than the GPU or the machine has ends with exit status 1,
as the course chooses its sizes.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

DRIVER_VERSION = Path("/proc/driver/nvidia/version")  # of the kernel, so in containers too
REQUIRE_GPUS = "__import__('ci.worker.machine').worker.machine.require_gpus()"  # in a kernel
FEWER = "the engine or the scheduler gave fewer GPUs than it was asked for: try invoke doctor"
LOST = "see the kernel's log for Xid or ECC messages (dmesg), then restart the machine"
DRIVER = "reinstall the driver, then try invoke doctor"
BUSY = "stop the other program that uses the GPU, then try invoke doctor"
ROOM = "make room on its disk or in /dev/shm; invoke clean removes old runs"

OF_GPUS = {
    r"CUDA shows \d+ of \d+ leased GPUs": FEWER,
    r"CUDA error: (unknown error|unspecified launch failure|hardware stack error)": LOST,
    r"CUDA error: (uncorrectable |Invalid access of peer GPU memory)": LOST,
    r"CUDA error: (no CUDA-capable device is detected|initialization error)": LOST,
    r"\bGPU is lost\b|NVML_SUCCESS == |\b[Cc]an't initialize NVML|nvmlInit": LOST,
    r"CUDA error: .*busy or unavailable": BUSY,
    r"CUDA error: the launch timed out": "use a GPU without a display",
    r"CUDA error: MPS ": "restart the MPS server of the GPU",
    r"CUDA error: (system |CUDA driver |API call is not supported|forward compat)": DRIVER,
    r"CUDA error: no kernel image is available": "use a build of torch that has this GPU",
    r"CUDA (unknown error|driver initialization failed)|cudaGetDeviceCount\(\)": DRIVER,
    r"No CUDA GPUs are available|Found no NVIDIA driver|NVIDIA driver on your system": DRIVER,
    r"NCCL .*unhandled system error": "try invoke doctor",
}
OF_DISKS = {
    r"\bNo space left on device\b|\[Errno 28\]": ROOM,
    r"\[Errno 5\]": "see the kernel's log for faults of the disk (dmesg)",
}


def remedy(error: str, *, gpus: bool) -> str:
    """What to do about an exception (its type and its text) if the machine is at fault, else ''.

    Without `gpus` of its own, a lesson that uses CUDA is at fault itself.
    """
    faults = {**OF_DISKS, **(OF_GPUS if gpus else {})}
    return next((advice for fault, advice in faults.items() if re.search(fault, error)), "")


def require_gpus() -> None:
    """Ask CUDA for the GPUs of CUDA_VISIBLE_DEVICES, in the kernel of a lesson that leased them.

    Raises torch's error if CUDA cannot start, and RuntimeError if it shows fewer: the lesson must
    not run on the CPU instead. A CPU build of torch is another fault.
    """
    import torch

    if not torch.version.cuda:
        return
    leased = len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    torch.cuda.init()  # `device_count` alone asks NVML, which an old driver has too
    if (found := torch.cuda.device_count()) < leased:
        raise RuntimeError(f"CUDA shows {found} of {leased} leased GPUs")


def versions() -> str:
    """The versions that have to fit: those of the driver and of torch."""
    import torch

    driver = None
    with suppress(OSError):
        driver = re.search(r"\d{3}\.\d+(\.\d+)?", DRIVER_VERSION.read_text())
    name = driver[0] if driver else "of unknown version"
    return f"NVIDIA driver {name}, torch {torch.__version__} for CUDA {torch.version.cuda}"
