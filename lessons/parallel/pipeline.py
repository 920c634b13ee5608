"""Rank programs for pipeline parallelism: each rank has some layers, and all samples."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.nn.functional import mse_loss

from parallel.network import Named, Stage, gradients, parameters

# Outputs (on the last rank) and gradients of the first step, and the weights after the last one.
Found = tuple[Tensor | None, Named, Named]


def my_stage(device: torch.device, weights: Named) -> Stage:
    """The layers of this rank: consecutive, and about as many as on any other rank."""
    rank, world_size, depth = dist.get_rank(), dist.get_world_size(), len(weights)
    names = list(weights)[rank * depth // world_size : (rank + 1) * depth // world_size]
    return Stage({name: weights[name] for name in names}).to(device)


def forward(stage: Stage, x: Tensor) -> tuple[Tensor, Tensor]:
    """The activations that this stage receives for one microbatch, and its own."""
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    h = x
    if rank > 0:
        h = x.new_empty(len(x), stage.width)
        dist.recv(h, rank - 1)
        h.requires_grad_()  # the previous stage needs its gradient
    out = stage(h)
    if rank < last:
        dist.send(out.detach(), rank + 1)
    return h, out


def backward(h: Tensor, out: Tensor, targets: Tensor, n: int) -> None:
    """Differentiate one microbatch of a batch of n samples, from `out` back to `h`."""
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    if rank == last:
        d = 2 / n * (out.detach() - targets)  # the derivative of the loss
    else:
        d = torch.empty_like(out)
        dist.recv(d, rank + 1)
    out.backward(d)  # accumulates in the gradients of the weights
    if rank > 0:
        dist.send(h.grad, rank - 1)


def train_by_hand(
    device: torch.device,
    weights: Named,
    x: Tensor,
    y: Tensor,
    pieces: int,
    steps: int,
    lr: float,
) -> Found:
    """Train by gradient descent, with the batch in `pieces` microbatches."""
    stage = my_stage(device, weights)
    optimizer = torch.optim.SGD(stage.parameters(), lr=lr)
    samples, targets = (table.to(device).tensor_split(pieces) for table in (x, y))
    for step in range(steps):
        optimizer.zero_grad()
        passes = [forward(stage, piece) for piece in samples]
        for (h, out), target in zip(passes, targets, strict=True):
            backward(h, out, target, len(x))
        if step == 0:
            first, found = torch.cat([out.detach() for _, out in passes]), gradients(stage)
        optimizer.step()
    is_last = dist.get_rank() == dist.get_world_size() - 1
    return first if is_last else None, found, parameters(stage)


def train_by_torch(
    device: torch.device,
    weights: Named,
    x: Tensor,
    y: Tensor,
    pieces: int,
    steps: int,
    lr: float,
) -> Found:
    """The same by torch's schedule, which requires microbatches of equal size."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    stage = my_stage(device, weights)
    optimizer = torch.optim.SGD(stage.parameters(), lr=lr)
    part = PipelineStage(stage, rank, world_size, device)
    schedule = ScheduleGPipe(part, pieces, loss_fn=mse_loss)
    samples = [x.to(device)] if rank == 0 else []
    targets = {"target": y.to(device)} if rank == world_size - 1 else {}
    for step in range(steps):
        optimizer.zero_grad()
        outputs = schedule.step(*samples, **targets)  # forward and backward, all microbatches
        if step == 0:
            first = None if outputs is None else outputs.detach()  # the last rank has them
            found = gradients(stage)
        optimizer.step()
    return first, found, parameters(stage)
