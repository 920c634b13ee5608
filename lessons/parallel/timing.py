"""Rank programs that look at the clock."""

import time

import torch
import torch.distributed as dist
from torch import Tensor

from parallel.data_parallel import local_loss, my_rows
from parallel.network import Named, Network


def now(device: torch.device) -> float:
    """Seconds of a clock that all ranks share; a GPU has done by then what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def watch(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> list[list[float]]:
    """Train; for each step, in s: when it began, and when each of its four parts ended."""
    n = len(x)
    x, y = my_rows(x, device), my_rows(y, device)  # (n_local, features), (n_local, 1)
    network = Network(weights).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    watched = []
    for _ in range(steps):
        optimizer.zero_grad()
        dist.barrier()  # all begin together
        times = [now(device)]
        loss = len(x) / n * local_loss(network, x, y)
        times.append(now(device))
        loss.backward()
        times.append(now(device))
        for weight in network.parameters():
            dist.all_reduce(weight.grad)
        times.append(now(device))
        optimizer.step()
        watched.append([*times, now(device)])
    return watched
