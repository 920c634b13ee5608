"""Rank programs for ZeRO by hand: each rank keeps a shard of what the optimizer needs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from parallel.data_parallel import my_samples
from parallel.network import Named, row


def reduce_scatter(whole: Tensor) -> Tensor:
    """The shard of this rank of the sum over all ranks."""
    parts = list(whole.chunk(dist.get_world_size()))
    shard = torch.empty_like(parts[0])
    dist.reduce_scatter(shard, parts)
    return shard


def all_gather(shard: Tensor) -> Tensor:
    """The shards of all ranks, one after the other."""
    parts = [torch.empty_like(shard) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, shard)
    return torch.cat(parts)


def local_gradient(flat: Tensor, weights: Named, x: Tensor, y: Tensor, n: int) -> Tensor:
    """The term of these samples in the gradient over n samples, for weights in one long row."""
    flat = flat.detach().requires_grad_()
    W1, W2 = weights["W1"], weights["W2"]
    first, second = flat[: W1.numel()], flat[W1.numel() : W1.numel() + W2.numel()]
    out = (x @ first.view(W1.shape).T).tanh() @ second.view(W2.shape).T
    (gradient,) = torch.autograd.grad(((out - y) ** 2).sum() / n, flat)
    return gradient


def train_zero(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float, stage: int
) -> tuple[list[int], Tensor]:
    """SGD with momentum in a stage of ZeRO, 0 to 3: the bytes that this rank keeps; the weights."""
    world_size, n = dist.get_world_size(), len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)

    def shard(flat: Tensor) -> Tensor:
        return flat.chunk(world_size)[dist.get_rank()]

    flat = row(weights).to(device)
    flat = pad(flat, (0, -len(flat) % world_size))  # so that all shards have the same length
    kept = shard(flat) if stage == 3 else flat  # weights that this rank keeps between steps
    momentum = torch.zeros_like(shard(flat) if stage >= 1 else flat)
    for _ in range(steps):
        whole = all_gather(kept) if stage == 3 else kept
        gradient = local_gradient(whole, weights, x, y, n)
        if stage >= 2:
            gradient = reduce_scatter(gradient)  # the sum, and this rank's shard of it only
        else:
            dist.all_reduce(gradient)
        momentum = 0.9 * momentum + (shard(gradient) if stage == 1 else gradient)
        updated = (shard(kept) if stage in (1, 2) else kept) - lr * momentum
        kept = all_gather(updated) if stage in (1, 2) else updated
    trained = all_gather(kept) if stage == 3 else kept
    memory = [len(each) * each.itemsize for each in (kept, gradient, momentum)]
    return memory, trained[: len(row(weights))]


def train_stages(device: torch.device, *task: Any) -> list[tuple[list[int], Tensor]]:
    """The same training in each stage, from 0 to 3."""
    return [train_zero(device, *task, stage) for stage in range(4)]
