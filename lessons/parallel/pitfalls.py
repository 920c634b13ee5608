"""Rank programs of lesson 08: the mistakes of data parallelism, each with its remedy.

The last argument of most programs, `mended`, says whether they apply the remedy.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

Shards = Sequence[tuple[Tensor, Tensor]]  # for each rank: samples (n_local, features), targets


class Regression(nn.Module):
    """out = x w, with its own copy of the initial weights."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())  # (features,)

    def forward(self, x: Tensor) -> Tensor:  # (n, features)
        return x @ self.w  # (n,)


def my_shard(device: torch.device, shards: Shards) -> tuple[Tensor, Tensor]:
    """Samples and targets of this rank, on its device."""
    x, y = shards[dist.get_rank()]
    return x.to(device), y.to(device)


def my_share(shards: Shards) -> float:
    """The samples of this rank, as a share n_r / n of all."""
    counts = [len(x) for x, _ in shards]
    return counts[dist.get_rank()] / sum(counts)


def local_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of the samples of this rank; 0 if it has none."""
    return ((network(x) - y) ** 2).sum() / max(1, len(x))


def run_both(device: torch.device, program: Callable[..., Any], *arguments: Any) -> list[Tensor]:
    """What a program returns without its remedy, and then with it."""
    results: list[Tensor] = []
    for mended in (False, True):
        found = program(device, *arguments, mended)
        results += found if isinstance(found, tuple) else [found]
    return results


def train(
    device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float, mended: bool
) -> Tensor:
    """The weights of this rank after training."""
    x, y = my_shard(device, shards)
    weight = my_share(shards) * dist.get_world_size()
    replica = DistributedDataParallel(Regression(w).to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        with nullcontext() if mended else replica.no_sync():
            loss = weight * local_loss(replica, x, y)
            loss.backward()
        optimizer.step()
    return replica.module.w.detach()  # (features,)


def reduce_gradients(device: torch.device, w: Tensor, shards: Shards, mended: bool) -> Tensor:
    """The gradient after an all-reduce."""
    x, y = my_shard(device, shards)
    network = Regression(w).to(device)
    weight = my_share(shards) if mended else 1
    (weight * local_loss(network, x, y)).backward()
    dist.all_reduce(network.w.grad)
    return network.w.grad


def evaluate(device: torch.device, w: Tensor, shards: Shards, mended: bool) -> Tensor:
    """The loss over all samples."""
    x, y = my_shard(device, shards)
    squares = (x @ w.to(device) - y) ** 2  # (n_local,)
    if mended:
        sums = torch.stack([squares.sum(), squares.new_tensor(len(x))])  # (2,)
        dist.all_reduce(sums)
        return sums[0] / sums[1]
    mean = squares.mean()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def load(
    device: torch.device, w: Tensor, x: Tensor, y: Tensor, mended: bool
) -> tuple[Tensor, Tensor]:
    """The indices of the samples that this rank loads, and DDP's gradient over all ranks."""
    size = -(-len(x) // dist.get_world_size())  # samples per rank, rounded up
    sampler = DistributedSampler(range(len(x)), shuffle=False) if mended else None
    loader = DataLoader(range(len(x)), batch_size=size, sampler=sampler)
    numbers = next(iter(loader))  # (size,)
    replica = DistributedDataParallel(Regression(w).to(device))
    local_loss(replica, x[numbers].to(device), y[numbers].to(device)).backward()
    return numbers, replica.module.w.grad


def weight_samples(device: torch.device, w: Tensor, x: Tensor, y: Tensor, times: Tensor) -> Tensor:
    """The gradient if each sample dealt out k times has the weight 1 / k."""
    numbers = list(DistributedSampler(range(len(x)), shuffle=False))
    replica = DistributedDataParallel(Regression(w).to(device))
    errors = replica(x[numbers].to(device)) - y[numbers].to(device)  # (size,)
    loss = (errors**2 / times[numbers].to(device)).sum() * dist.get_world_size() / len(x)
    loss.backward()
    return replica.module.w.grad


def descend(
    device: torch.device, drawn: Tensor, shards: Shards, steps: int, lr: float, mended: bool
) -> Tensor:
    """The weights after gradient descent by hand, which averages gradients but not weights."""
    x, y = my_shard(device, shards)
    w = drawn[dist.get_rank()].to(device)
    if mended:
        dist.broadcast(w, src=0)
    network = Regression(w)
    for _ in range(steps):
        network.zero_grad()
        (my_share(shards) * local_loss(network, x, y)).backward()
        dist.all_reduce(network.w.grad)
        with torch.no_grad():
            network.w -= lr * network.w.grad
    return network.w.detach()


def reduce_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column over all ranks."""
    sums = torch.cat([x.sum(dim=0), x.new_tensor([len(x)])])  # (features + 1,)
    dist.all_reduce(sums)
    n = sums[-1]
    mean = sums[:-1] / n
    squares = ((x - mean) ** 2).sum(dim=0)
    dist.all_reduce(squares)
    return mean, squares / (n - 1)


def normalize(
    device: torch.device, shards: Sequence[Tensor], mended: bool
) -> tuple[Tensor, Tensor]:
    """The mean and variance of each column, as batch normalization keeps them."""
    x = shards[dist.get_rank()].to(device)  # (n_local, features)
    layer = nn.BatchNorm1d(x.shape[1], momentum=1.0, dtype=x.dtype).to(device)
    if mended and device.type == "cpu":
        return reduce_statistics(x)
    if mended:
        layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    layer(x)
    return layer.running_mean, layer.running_var  # (features,) each


def train_with_adam(
    device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float, mended: bool
) -> tuple[Tensor, Tensor]:
    """The loss over all samples at each step, and the gradient before the first `step()`."""
    x, y = my_shard(device, shards)
    weight = my_share(shards) * dist.get_world_size()
    replica = DistributedDataParallel(Regression(w).to(device))
    optimizer = torch.optim.Adam(replica.parameters(), lr=lr)
    losses, gradients = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(1 if mended else 2):  # one pass to log the gradient, one to train?
            loss = weight * local_loss(replica, x, y)
            loss.backward()
        gradients.append(replica.module.w.grad.clone())
        optimizer.step()
        losses.append(loss.detach())
    mean = torch.stack(losses)  # (steps,)
    dist.all_reduce(mean)
    return mean / dist.get_world_size(), gradients[0]
