"""Rank programs for data parallelism: each rank has the whole network and some of the samples."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parallel.messages import log_messages
from parallel.network import Named, Network, gradients, parameters


def add_ranks(device: torch.device) -> tuple[int, int, str, int]:
    """Rank, world size and backend; and the sum of all ranks, counted from 1, by all-reduce."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    number = torch.tensor(rank + 1, device=device)
    dist.all_reduce(number)  # in place, and a sum by default
    return rank, world_size, dist.get_backend(), number.item()


def my_samples(table: Tensor, device: torch.device) -> Tensor:
    """The samples of this rank, on its device."""
    return table.tensor_split(dist.get_world_size())[dist.get_rank()].to(device)


def gradient_by_hand(device: torch.device, X: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """The gradient of |Xw - t|^2 / 2 over all samples."""
    X, t = my_samples(X, device), my_samples(t, device)  # (n_local, features), (n_local,)
    w = w.to(device).requires_grad_()  # (features,)
    loss = ((X @ w - t) ** 2).sum() / 2
    loss.backward()  # the gradient over the samples of this rank
    dist.all_reduce(w.grad)  # the gradient over all samples
    return w.grad


def local_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of the samples of this rank; NaN if it has none."""
    return ((network(x) - y) ** 2).mean()


def ddp_gradients(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, is_weighted: bool
) -> tuple[Named, Named]:
    """The gradients of this rank alone, and DDP's mean over all ranks."""
    n, world_size = len(x), dist.get_world_size()
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
    weight = len(x) * world_size / n if is_weighted else 1
    replica = DistributedDataParallel(Network(weights).to(device))
    with replica.no_sync():  # for once, no averaging
        (weight * local_loss(replica, x, y)).backward()
    alone = gradients(replica.module)
    replica.zero_grad()
    (weight * local_loss(replica, x, y)).backward()  # averages the gradients
    return alone, gradients(replica.module)


def train(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> tuple[Tensor, Named]:
    """The loss at each step, over all samples, and the weights after the last step."""
    scale = dist.get_world_size() / len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
    replica = DistributedDataParallel(Network(weights).to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = scale * ((replica(x) - y) ** 2).sum()
        loss.backward()  # equal gradients on all ranks,
        optimizer.step()  # so equal updates
        losses.append(loss.detach())
    mean = torch.stack(losses)  # (steps,)
    dist.all_reduce(mean)
    return mean / dist.get_world_size(), parameters(replica.module)


def accumulated_gradients(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, pieces: int
) -> tuple[int, Named]:
    """From `pieces` backward passes: the number of all-reduces, the gradients over all samples."""
    scale = dist.get_world_size() / len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
    replica = DistributedDataParallel(Network(weights).to(device))
    messages = log_messages(replica)
    passes = zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True)
    for i, (samples, targets) in enumerate(passes, 1):
        with replica.no_sync() if i < pieces else nullcontext():  # the last pass averages
            (scale * ((replica(samples) - targets) ** 2).sum()).backward()
    return len(messages), gradients(replica.module)
