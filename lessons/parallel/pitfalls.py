"""Rank programs of lesson 08: the mistakes of data parallelism, each beside its remedy."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

Shards = Sequence[tuple[Tensor, Tensor]]  # for each rank: samples (n_local, features), targets


class Regression(nn.Module):
    """out = x w, with its own copy of the weights that it starts from."""

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


# Gradients that are never averaged.


def train_apart(
    device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float
) -> tuple[Tensor, Tensor]:
    """Loss and weights of this rank at each step."""
    x, y = my_shard(device, shards)
    replica = DistributedDataParallel(Regression(w).to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    losses, weights = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        with replica.no_sync():
            loss = local_loss(replica, x, y)
            loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        weights.append(replica.module.w.detach().clone())
    return torch.stack(losses), torch.stack(weights)  # (steps,), (steps, features)


def train_together(
    device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float
) -> Tensor:
    """The weights of this rank after each step."""
    x, y = my_shard(device, shards)
    replica = DistributedDataParallel(Regression(w).to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    weights = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = my_share(shards) * dist.get_world_size() * local_loss(replica, x, y)
        loss.backward()  # DDP takes the mean over the ranks
        optimizer.step()
        weights.append(replica.module.w.detach().clone())
    return torch.stack(weights)  # (steps, features)


# A sum instead of a mean, and a mean of means.


def add_gradients(device: torch.device, w: Tensor, shards: Shards) -> Tensor:
    """The sum of the ranks' gradients."""
    x, y = my_shard(device, shards)
    network = Regression(w).to(device)
    local_loss(network, x, y).backward()
    dist.all_reduce(network.w.grad)
    return network.w.grad


def average_gradients(device: torch.device, w: Tensor, shards: Shards) -> Tensor:
    """The mean of the ranks' gradients, each weighted by its share of the samples."""
    x, y = my_shard(device, shards)
    network = Regression(w).to(device)
    (my_share(shards) * local_loss(network, x, y)).backward()
    dist.all_reduce(network.w.grad)
    return network.w.grad


def evaluate_apart(device: torch.device, w: Tensor, shards: Shards) -> tuple[Tensor, Tensor]:
    """The loss of this rank, and the mean of the ranks' losses."""
    x, y = my_shard(device, shards)
    loss = ((x @ w.to(device) - y) ** 2).mean()
    total = loss.clone()
    dist.all_reduce(total)
    return loss, total / dist.get_world_size()


def evaluate_together(device: torch.device, w: Tensor, shards: Shards) -> Tensor:
    """The loss over all samples, from sums and counts."""
    x, y = my_shard(device, shards)
    squares = ((x @ w.to(device) - y) ** 2).sum()
    sums = torch.stack([squares, squares.new_tensor(len(x))])  # (2,)
    dist.all_reduce(sums)
    return sums[0] / sums[1]


# Who loads which samples.


def gradient_of(device: torch.device, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean over the ranks of their gradients, by DDP."""
    replica = DistributedDataParallel(Regression(w).to(device))
    local_loss(replica, x.to(device), y.to(device)).backward()
    return replica.module.w.grad


def load_without_sampler(
    device: torch.device, w: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """The numbers of the samples that this rank loads, and their gradient."""
    size = -(-len(x) // dist.get_world_size())  # samples per rank, rounded up
    loader = DataLoader(range(len(x)), batch_size=size)
    rows = next(iter(loader))  # (size,)
    return rows, gradient_of(device, w, x[rows], y[rows])


def load_with_sampler(
    device: torch.device, w: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, with a sampler."""
    size = -(-len(x) // dist.get_world_size())
    sampler = DistributedSampler(range(len(x)), shuffle=False)
    loader = DataLoader(range(len(x)), batch_size=size, sampler=sampler)
    rows = next(iter(loader))
    return rows, gradient_of(device, w, x[rows], y[rows])


def weigh_samples(device: torch.device, w: Tensor, x: Tensor, y: Tensor, times: Tensor) -> Tensor:
    """The gradient, if each sample counts 1 / the times that it was dealt out."""
    rows = list(DistributedSampler(range(len(x)), shuffle=False))
    replica = DistributedDataParallel(Regression(w).to(device))
    errors = replica(x[rows].to(device)) - y[rows].to(device)  # (size,)
    loss = (errors**2 / times[rows].to(device)).sum() * dist.get_world_size() / len(x)
    loss.backward()
    return replica.module.w.grad


# Different initial weights.


def descend(device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float) -> Tensor:
    """Gradient descent by hand: the gradients are averaged, the weights are not."""
    x, y = my_shard(device, shards)
    network = Regression(w).to(device)
    for _ in range(steps):
        network.zero_grad()
        (my_share(shards) * local_loss(network, x, y)).backward()
        dist.all_reduce(network.w.grad)
        with torch.no_grad():
            network.w -= lr * network.w.grad
    return network.w.detach()


def begin_apart(
    device: torch.device, drawn: Tensor, shards: Shards, steps: int, lr: float
) -> Tensor:
    """Train from the weights that this rank has drawn."""
    w = drawn[dist.get_rank()].to(device)
    return descend(device, w, shards, steps, lr)


def begin_together(
    device: torch.device, drawn: Tensor, shards: Shards, steps: int, lr: float
) -> tuple[Tensor, Tensor]:
    """The weights after DDP has wrapped the network, and training from those of rank 0."""
    w = drawn[dist.get_rank()].to(device)
    replica = DistributedDataParallel(Regression(w))
    dist.broadcast(w, src=0)
    return replica.module.w.detach(), descend(device, w, shards, steps, lr)


# Statistics of a shard.


def normalize(
    device: torch.device, layer: nn.Module, shards: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The statistics that a layer keeps of a shard: mean and variance of each column."""
    layer = layer.to(device)
    layer(shards[dist.get_rank()].to(device))  # (n_local, features)
    return layer.running_mean, layer.running_var  # (features,) each


def normalize_together(device: torch.device, shards: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column over all ranks."""
    x = shards[dist.get_rank()].to(device)  # (n_local, features)
    sums = torch.cat([x.sum(dim=0), x.new_tensor([len(x)])])  # (features + 1,)
    dist.all_reduce(sums)
    n = sums[-1]
    mean = sums[:-1] / n
    squares = ((x - mean) ** 2).sum(dim=0)
    dist.all_reduce(squares)
    return mean, squares / (n - 1)


# A gradient that is exactly doubled.


def train_with_adam(
    device: torch.device, w: Tensor, shards: Shards, steps: int, lr: float, passes: int
) -> tuple[Tensor, Tensor]:
    """The gradient before the first step, and the loss over all samples at each step."""
    x, y = my_shard(device, shards)
    weight = my_share(shards) * dist.get_world_size()
    replica = DistributedDataParallel(Regression(w).to(device))
    optimizer = torch.optim.Adam(replica.parameters(), lr=lr)
    gradients, losses = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(passes):  # one pass to log the gradient, and one to train?
            loss = weight * local_loss(replica, x, y)
            loss.backward()
        gradients.append(replica.module.w.grad.clone())
        optimizer.step()
        losses.append(loss.detach())
    mean = torch.stack(losses)  # (steps,)
    dist.all_reduce(mean)
    return gradients[0], mean / dist.get_world_size()
