"""Rank programs that record times."""

import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parallel.data_parallel import local_loss, my_samples
from parallel.messages import Message, log_messages
from parallel.network import Named, Network


def now(device: torch.device) -> float:
    """Seconds of a clock that all ranks share; a GPU has finished its work by then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def watch(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> list[list[float]]:
    """Train; for each step, in s: when it began, and when each of its four parts ended."""
    n = len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
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


def watch_buckets(
    device: torch.device, width: int, depth: int, bucket_mb: float, dtype: torch.dtype
) -> tuple[list[Message], list[float]]:
    """The messages of one backward pass, and when each layer had its gradient, the last first."""
    layers = [nn.Linear(width, width, bias=False, dtype=dtype) for _ in range(depth)]
    network = nn.Sequential(*layers).to(device)
    x = torch.ones(256, width, dtype=dtype, device=device)
    ready: list[float] = []
    for weight in network.parameters():
        weight.register_post_accumulate_grad_hook(lambda _: ready.append(time.monotonic()))
    replica = DistributedDataParallel(network, bucket_cap_mb=bucket_mb)
    messages = log_messages(replica)
    for _ in range(3):  # in the first pass, DDP learns the order of the gradients
        loss = (replica(x) ** 2).mean()
        messages.clear()
        ready.clear()
        dist.barrier()
        begin = now(device)
        loss.backward()
    return [(size, b - begin, e - begin) for size, b, e in messages], [t - begin for t in ready]
