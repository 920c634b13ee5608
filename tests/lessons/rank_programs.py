"""Programs of ranks that return, fail, hang and die, and what is left of the ranks."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist


def rank_program(module: str, name: str) -> Callable[..., Any]:
    """A rank program of the lessons. Its module imports half of torch, which other tests lack."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"parallel.{module}"), name)
    return found


def echo(device: torch.device, *arguments: Any) -> tuple[int, tuple[Any, ...]]:
    return dist.get_rank(), arguments


def threads(device: torch.device) -> int:
    return torch.get_num_threads()


def raise_on_rank_2(device: torch.device) -> None:
    if dist.get_rank() == 2:
        raise KeyError("no such row")
    dist.barrier()


def exit_on_rank_1(device: torch.device) -> None:
    if dist.get_rank() == 1:
        sys.exit(0)
    dist.barrier()


def die_on_rank_1(device: torch.device, how: int) -> None:
    if dist.get_rank() == 1:
        os.kill(os.getpid(), how)
    dist.barrier()


def sleep_on_rank_1(device: torch.device, folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    if dist.get_rank() == 1:
        time.sleep(1000)


def wait_for_rank_1(device: torch.device, folder: str) -> None:
    sleep_on_rank_1(device, folder)
    dist.all_reduce(torch.ones(1))


def sleep_deaf(device: torch.device, folder: str) -> None:
    """Sleep, and heed no signal that can be ignored."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(1000)


def fail_in_stage_1(device: torch.device, folder: str, *task: Any) -> None:
    (Path(folder) / str(os.getpid())).touch()
    if dist.get_rank() == 1:
        raise ArithmeticError("a stage that fails")
    rank_program("pipeline", "train_by_hand")(device, *task)


def schedule_unevenly(device: torch.device, folder: str, *task: Any) -> None:
    (Path(folder) / str(os.getpid())).touch()
    rank_program("pipeline", "train_by_torch")(device, *task)


def ranks_left(folder: Path) -> list[int]:
    """The processes that left their number in `folder` and still run."""

    def runs(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in (int(path.name) for path in folder.iterdir()) if runs(pid)]


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def caller(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process of its own, in a process group of its own, that can launch ranks."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
