"""Run a program on several ranks, one process each, and return their results."""

import faulthandler
import gc
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import takewhile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

GRACE_S = 1.0  # for the other ranks after a failure, and for all of them after the deadline

# Ranks are forked from a server that has imported these modules once. Rank programs are not
# among them: each launch imports them again, because a student may have changed their files.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "torch.distributed", "torch._dynamo"])


def launch(
    program: Callable[..., Any],
    world_size: int,
    *arguments: Any,
    timeout_s: float = 60.0,
    device: str = "cpu",
) -> list[Any]:
    """Run `program(device, *arguments)` on `world_size` ranks; return their results by rank.

    Each rank is a process with one thread, in a process group of all of them: gloo on the CPU,
    NCCL on CUDA, where rank r has the device cuda:r. Tensors among the arguments and results are
    copied, and arrive on the CPU.

    Raises ValueError if the ranks cannot be started; RuntimeError, with the rank and its traceback,
    if a rank fails; TimeoutError, with the current line of each late rank, if any has not returned
    after `timeout_s` seconds. No rank outlives the call, or the caller.
    """
    kind = torch.device(device).type
    if world_size < 1:
        raise ValueError(f"world_size is {world_size}: a world has at least one rank")
    if kind == "cuda" and (found := torch.cuda.device_count()) < world_size:
        raise ValueError(f"{world_size} ranks need {world_size} GPUs, and there are {found}")
    if program.__module__ == "__main__":
        raise ValueError(f"{program.__name__} must be in a module: ranks can't import a notebook")

    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        torch.save((program, arguments), folder / "task")
        ranks = [
            _context.Process(
                target=_rank, args=(rank, world_size, kind, timeout_s, folder), daemon=True
            )
            for rank in range(world_size)
        ]
        try:
            for rank in ranks:
                rank.start()
            late = _wait(ranks, timeout_s)
        finally:
            _end(ranks)
        if fault := _describe_failure(folder, ranks, late):
            raise RuntimeError(fault)
        if late:
            raise TimeoutError(_describe_late(folder, late, world_size, timeout_s))
        return [_load(folder / f"result-{rank}") for rank in range(world_size)]


def _load(path: Path) -> Any:
    """Read what this package wrote, with all tensors on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=False)


# In the caller's process: wait for the ranks, end them, and report what went wrong.


def _wait(ranks: Sequence[BaseProcess], timeout_s: float) -> list[int]:
    """Wait until all ranks have ended; return the numbers of those that are late."""
    deadline = time.monotonic() + timeout_s + GRACE_S
    while running := [rank for rank in ranks if rank.is_alive()]:
        if any(rank.exitcode for rank in ranks):  # the others may wait for it forever
            deadline = min(deadline, time.monotonic() + GRACE_S)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        multiprocessing.connection.wait([rank.sentinel for rank in running], remaining)
    return [number for number, rank in enumerate(ranks) if rank.is_alive()]


def _end(ranks: Sequence[BaseProcess]) -> None:
    """End all ranks, even those that ignore signals or wait."""
    for rank in ranks:
        if rank.is_alive():
            rank.kill()
    for rank in ranks:
        if rank.pid:
            rank.join()


def _describe_failure(
    folder: Path, ranks: Sequence[BaseProcess], late: Sequence[int]
) -> str | None:
    """Describe the first failure. The errors of the other ranks are its consequences."""
    exits = {number: rank.exitcode for number, rank in enumerate(ranks) if number not in late}
    for number, code in exits.items():
        if code is not None and code < 0:
            return f"rank {number} of {len(ranks)} was ended by {signal.Signals(-code).name}"
    first = folder / "fault"
    if first.exists():
        return first.read_text()
    for number, code in exits.items():
        if code or not (folder / f"result-{number}").exists():
            return f"rank {number} of {len(ranks)} exited with status {code} before it returned"
    return None


def _describe_late(folder: Path, late: Sequence[int], world_size: int, timeout_s: float) -> str:
    """Where each late rank was at the deadline: its innermost calls, the latest first."""
    lines = []
    for number in late:
        threads = (folder / f"traceback-{number}").read_text().split("\n\n")
        calls = threads[-1].splitlines()[1:]  # the main thread is the last one
        lines += [f"rank {number} of {world_size} has not returned after {timeout_s:g} s; it is in"]
        lines += takewhile(lambda call: not call.endswith(" in _rank"), calls)
    return "\n".join(lines)


# In each rank's process.


def _rank(rank: int, world_size: int, kind: str, timeout_s: float, folder: Path) -> None:
    """Join the process group, run the program, save its result in `folder`, and leave the group."""
    gc.freeze()  # later collections skip what the server has imported
    threading.Thread(target=_end_with_caller, args=(folder,), daemon=True).start()
    late = (folder / f"traceback-{rank}").open("w")
    faulthandler.dump_traceback_later(timeout_s, file=late)
    try:
        device = _join_group(rank, world_size, kind, timeout_s, folder)
        program, arguments = _load(folder / "task")
        torch.save(program(device, *arguments), folder / f"result-{rank}")
        gc.collect()  # a DDP model that outlives its process group can hang the process
        dist.destroy_process_group()
    except BaseException:
        fault = folder / f"fault-{rank}"
        fault.write_text(f"rank {rank} of {world_size} failed:\n\n{traceback.format_exc()}")
        with suppress(FileExistsError):  # only the first fault gets this name
            (folder / "fault").hardlink_to(fault)
        sys.stdout.flush()
        os._exit(1)  # no clean-up, which might wait for the other ranks


def _join_group(
    rank: int, world_size: int, kind: str, timeout_s: float, folder: Path
) -> torch.device:
    """Form the process group, and return the device of this rank."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:  # all ranks are on this machine: gloo can use the loopback interface
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        store=dist.FileStore(str(folder / "store"), world_size),
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=2 * timeout_s),  # the caller's deadline comes first
        device_id=device if kind == "cuda" else None,
    )
    dist.barrier()  # otherwise a rank could leave before the others have connected
    return device


def _end_with_caller(folder: Path) -> None:
    """End this process when the caller's process has ended, even by kill -9; remove its files."""
    caller = multiprocessing.parent_process()
    assert caller is not None
    caller.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
