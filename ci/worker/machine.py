"""Which exceptions of a lesson are the machine's fault, and what to do about them.

Memory is the lesson's: one that needs more than the GPU or the machine has ends with exit status 1,
as the course chooses its sizes.
"""

import re

LOST = "see the kernel's log for Xid or ECC messages (dmesg), then restart the machine"
DRIVER = "reinstall the driver, then try invoke doctor"
BUSY = "stop the other program that uses the GPU, then try invoke doctor"
ROOM = "make room on its disk or in /dev/shm; invoke clean removes old runs"

OF_GPUS = {
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
