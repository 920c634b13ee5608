"""Beside the lesson: what a lesson would find, tried out. `python -P -m ci.doctor.probe`.

What a look finds is a JSON line on standard output, `{"look": …, …}`; one that goes wrong has a
`fault`, and is the last. This process has an alarm, and so has each rank that it starts: none
outlives its deadline, whatever hangs and whoever was killed.
"""

import contextlib
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
DEADLINE_S = 180  # for all looks together
RANKS_S = 90.0  # for the ranks to start, meet and add; a hung NCCL waits for ever
SIZE = 1024  # of the matrices that are multiplied
ELEMENTS = 2**20  # that are added up over the ranks: 4 MiB


def main() -> None:
    """Take the looks in their order, each of which needs those before it."""
    signal.alarm(DEADLINE_S)
    looks: dict[str, Callable[[], Iterator[Fact]]] = {
        "surroundings": surroundings,
        "torch": build,
        "GPUs": gpus,
        "matmul": matmuls,
        LAST: all_reduce,
    }
    for name, look in looks.items():
        try:
            for fact in look():
                _send({"look": name, **fact})
        except Exception as error:  # whatever it is, it is what we were to find out
            _send({"look": name, "fault": _said(error)})
            return


def surroundings() -> Iterator[Fact]:
    """The user, the network interfaces that are up, the root, and bytes of shared memory."""
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").exists() else None
    yield {
        "uid": os.getuid(),
        "interfaces": [name for _, name in socket.if_nameindex() if _up(name)],
        "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "shm": shm.f_blocks * shm.f_frsize if shm else None,
    }


def build() -> Iterator[Fact]:
    """What torch was built for. It needs no driver."""
    import torch

    yield {"version": torch.__version__, "cuda": torch.version.cuda}


def gpus() -> Iterator[Fact]:
    """The GPUs that torch sees, what it has code for, and the pairs that don't reach each other.

    Nothing from a CPU build.
    """
    import torch

    if torch.version.cuda is None:
        return
    count = torch.cuda.device_count()
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    yield {
        "names": [torch.cuda.get_device_name(index) for index in range(count)],
        "arches": torch.cuda.get_arch_list(),
        "apart": [pair for pair in pairs if not torch.cuda.can_device_access_peer(*pair)],
    }


def matmuls() -> Iterator[Fact]:
    """On each GPU, the largest error of a float32 product, relative to its largest element.

    The CPU's product in float64 is what it is compared with.
    """
    import torch

    left, right = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = left.double() @ right.double()
    for index in range(torch.cuda.device_count()):
        shown = (left.to(f"cuda:{index}") @ right.to(f"cuda:{index}")).cpu()
        error = (shown - expected).abs().max() / expected.abs().max()
        yield {"device": index, "error": error.item()}


def all_reduce(timeout_s: float = RANKS_S) -> Iterator[Fact]:
    """The seconds of an all-reduce over the GPUs by NCCL, or over two ranks of the CPU by gloo.

    TimeoutError after `timeout_s` seconds, and the fault of the rank that failed first. No rank is
    left.
    """
    import torch
    from torch.multiprocessing.spawn import start_processes

    count = torch.cuda.device_count()
    backend, ranks = ("nccl", count) if count else ("gloo", 2)
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix=f"pytorch-course-{os.getpid()}-") as folder:
        context = start_processes(
            _rank, (ranks, backend, folder, timeout_s), nprocs=ranks, join=False
        )
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


def _rank(rank: int, ranks: int, backend: str, folder: str, timeout_s: float) -> None:
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
    for _ in range(2):  # the first one opens the connections
        total = torch.full((ELEMENTS,), rank + 1.0, device=device)
        began = time.monotonic()
        dist.all_reduce(total)
        expected = ranks * (ranks + 1) / 2
        if not (total == expected).all().item():  # the GPU has done its work by then
            raise ArithmeticError(f"{backend}, {ranks} ranks: the sum is not {expected}")
    if rank == 0:
        Path(folder, "seconds").write_text(str(time.monotonic() - began))
    dist.destroy_process_group()


def _up(interface: str) -> bool:
    """Whether an interface is in use; some kernels show tunnels that are down everywhere."""
    flags = Path("/sys/class/net", interface, "flags")
    return not flags.exists() or bool(int(flags.read_text(), 16) & 1)


def _said(error: Exception) -> str:
    """The last line of what went wrong: a rank's error ends in it, after its traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _send(fact: Fact) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(fact), flush=True)


if __name__ == "__main__":
    main()
