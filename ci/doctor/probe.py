"""What a lesson would find at its place, tested: `python -P -m ci.doctor.probe`.

This module runs beside lessons and imports nothing of the pipeline. Each test prints JSON lines,
`{"test": …, …}`; a test that fails prints a `fault` and is the last. The process and each of its
ranks have an alarm, so that none of them outlives DEADLINE_S.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

Fact = dict[str, Any]

LAST = "all-reduce"
DEADLINE_S = 180  # for all tests together
RANKS_S = 90.0  # for the ranks to start and communicate; NCCL can hang forever
SIZE = 1024  # of the matrices
ATTEMPT = Path("/attempt")  # in the lab, where runs write
ELEMENTS = 2**20  # of the all-reduced float32 tensor: 4 MiB


def main() -> None:
    """Run the tests in order; each needs the ones before it."""
    signal.alarm(DEADLINE_S)
    tests: dict[str, Callable[[], Iterator[Fact]]] = {
        "surroundings": find_surroundings,
        "torch": find_torch,
        "GPUs": find_gpus,
        "matmul": measure_matmuls,
        LAST: measure_all_reduce,
    }
    for name, test in tests.items():
        try:
            for fact in test():
                _print({"test": name, **fact})
        except Exception as error:  # any error is a finding
            _print({"test": name, "fault": _last_line(error)})
            return


def find_surroundings() -> Iterator[Fact]:
    """Yield the user id on the machine, network interfaces, shared memory, and what is written."""
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").exists() else None
    yield {
        "uid": _machine_uid(),
        "interfaces": [name for _, name in socket.if_nameindex() if _is_up(name)],
        "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "shm": shm.f_blocks * shm.f_frsize if shm else None,
        "attempt": _try_attempt(),
    }


def _try_attempt() -> str:
    """Return why no attempt can be written in the lab; empty if it can, and outside the lab."""
    try:
        if ATTEMPT.exists():
            (ATTEMPT / "log.txt").touch()
    except OSError as error:
        return error.strerror or "no reason given"
    return ""


def _machine_uid() -> int:
    """Return this process's user id outside its user namespace: a rootless engine maps them."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= os.getuid() < inside + count:
            return os.getuid() - inside + outside
    return os.getuid()


def _is_up(interface: str) -> bool:
    """Return whether an interface is active; some kernels show inactive tunnels everywhere."""
    flags = Path("/sys/class/net", interface, "flags")
    return not flags.exists() or bool(int(flags.read_text(), 16) & 1)


def find_torch() -> Iterator[Fact]:
    """Yield torch's version and the CUDA that it is built for. This needs no driver."""
    import torch

    yield {"version": torch.__version__, "cuda": torch.version.cuda}


def find_gpus() -> Iterator[Fact]:
    """Yield torch's GPUs, and pairs without peer access.

    A CPU build yields nothing.
    """
    import torch

    if torch.version.cuda is None:
        return
    count = torch.cuda.device_count()
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    yield {
        "names": [torch.cuda.get_device_name(index) for index in range(count)],
        "apart": [pair for pair in pairs if not torch.cuda.can_device_access_peer(*pair)],
    }


def measure_matmuls() -> Iterator[Fact]:
    """Yield each GPU's largest error of a float32 product, relative to its largest element.

    The reference is the CPU's product in float64.
    """
    import torch

    left, right = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = left.double() @ right.double()
    for index in range(torch.cuda.device_count()):
        shown = (left.to(f"cuda:{index}") @ right.to(f"cuda:{index}")).cpu()
        error = (shown - expected).abs().max() / expected.abs().max()
        yield {"device": index, "error": error.item()}


def measure_all_reduce(timeout_s: float = RANKS_S) -> Iterator[Fact]:
    """Yield the seconds of an all-reduce: over all GPUs with NCCL, or over two CPU ranks with gloo.

    Raises TimeoutError after `timeout_s` seconds, or the error of the first rank that fails. No
    rank is left running.
    """
    import torch
    from torch.multiprocessing.spawn import start_processes

    count = torch.cuda.device_count()
    backend, ranks = ("nccl", count) if count else ("gloo", 2)
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="pytorch-doctor-") as folder:
        # Like the folders of ci.machine.atomic: it is locked as long as this process lives.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
        arguments = (ranks, backend, folder, timeout_s)
        context = start_processes(_run_rank, arguments, nprocs=ranks, join=False)
        try:
            while not context.join(max(0, deadline - time.monotonic())):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{backend}, {ranks} ranks: not done in {timeout_s:g} s")
        finally:
            for process in context.processes:
                process.kill()
                process.join()
        seconds = float((Path(folder) / "seconds").read_text())
    yield {"backend": backend, "ranks": ranks, "seconds": seconds}


def _run_rank(rank: int, ranks: int, backend: str, folder: str, timeout_s: float) -> None:
    signal.alarm(DEADLINE_S)
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )
    for _ in range(2):  # the first all-reduce also opens the connections
        total = torch.full((ELEMENTS,), rank + 1.0, device=device)
        began = time.monotonic()
        dist.all_reduce(total)
        expected = ranks * (ranks + 1) / 2
        if not (total == expected).all().item():  # this waits for the GPU
            raise ArithmeticError(f"{backend}, {ranks} ranks: the sum is not {expected}")
    if rank == 0:
        Path(folder, "seconds").write_text(str(time.monotonic() - began))
    dist.destroy_process_group()


def _last_line(error: Exception) -> str:
    """Return an error's last line: a rank's error begins with its traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _print(fact: Fact) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(fact), flush=True)


if __name__ == "__main__":
    main()
