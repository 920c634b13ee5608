"""Rank programs for data parallelism: each rank has the whole network and some of the rows."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from parallel.network import Named, Network, gradients, parameters


def introduce(device: torch.device) -> tuple[int, int, str, int]:
    """Who am I? My rank, the number of ranks, the backend, my process id."""
    return dist.get_rank(), dist.get_world_size(), dist.get_backend(), os.getpid()


def add_up(device: torch.device) -> Tensor:
    """Each rank brings one number; each rank leaves with the sum of all."""
    number = torch.tensor(dist.get_rank() + 1, device=device)
    dist.all_reduce(number)  # in place, and a sum unless told otherwise
    return number


def my_rows(table: Tensor, device: torch.device) -> Tensor:
    """The rows of this rank, on its device."""
    return table.tensor_split(dist.get_world_size())[dist.get_rank()].to(device)


def gradient_by_hand(device: torch.device, X: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """The gradient of |Xw - t|^2 / 2 over all rows."""
    X, t = my_rows(X, device), my_rows(t, device)  # (n_local, features), (n_local,)
    w = w.to(device).requires_grad_()  # (features,)
    loss = ((X @ w - t) ** 2).sum() / 2
    loss.backward()  # the gradient over my rows
    dist.all_reduce(w.grad)  # the gradient over all rows
    return w.grad


def local_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of my rows; a mean of nothing, NaN, where I have none."""
    return ((network(x) - y) ** 2).mean()


def plain_gradients(
    device: torch.device, weights: Named, x: Tensor, y: Tensor
) -> tuple[Named, Named]:
    """My gradients without DDP's averaging, and with it."""
    x, y = my_rows(x, device), my_rows(y, device)  # (n_local, features), (n_local, 1)
    replica = DistributedDataParallel(Network(weights).to(device))
    with replica.no_sync():  # for once, no averaging
        local_loss(replica, x, y).backward()
    local = gradients(replica.module)
    replica.zero_grad()
    local_loss(replica, x, y).backward()  # here the ranks exchange their gradients
    return local, gradients(replica.module)


def ddp_gradients(device: torch.device, weights: Named, x: Tensor, y: Tensor) -> Named:
    """The gradients over all rows, by DDP."""
    n = len(x)
    x, y = my_rows(x, device), my_rows(y, device)  # (n_local, features), (n_local, 1)
    share = len(x) * dist.get_world_size() / n  # 1 where all ranks have equally many rows
    replica = DistributedDataParallel(Network(weights).to(device))
    loss = share * local_loss(replica, x, y)
    loss.backward()
    return gradients(replica.module)


def train(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> Named:
    """The weights after `steps` steps of gradient descent over all rows."""
    n = len(x)
    x, y = my_rows(x, device), my_rows(y, device)  # (n_local, features), (n_local, 1)
    share = len(x) * dist.get_world_size() / n
    replica = DistributedDataParallel(Network(weights).to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = share * local_loss(replica, x, y)
        loss.backward()  # equal gradients on all ranks,
        optimizer.step()  # so equal steps
    return parameters(replica.module)


def train_sharded(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> tuple[int, Named, Named]:
    """The same by FSDP: how many weights I hold, the last gradients, the weights."""
    n = len(x)
    x, y = my_rows(x, device), my_rows(y, device)  # (n_local, features), (n_local, 1)
    share = len(x) * dist.get_world_size() / n
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    network = fully_shard(Network(weights).to(device), mesh=mesh)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = share * local_loss(network, x, y)  # here the ranks exchange their shards
        loss.backward()  # over all rows, and a shard of it on each rank
        optimizer.step()
    held = sum(weight.to_local().numel() for weight in network.parameters())
    found = {name: shard.full_tensor() for name, shard in gradients(network).items()}
    trained = {name: shard.full_tensor() for name, shard in parameters(network).items()}
    return held, found, trained
