"""Rank programs for tensor parallelism: each rank has a slice of each layer, and all samples."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import mse_loss

from parallel.network import Named, Network, gradients, parameters

# Outputs and gradients of the first step, and the weights after the last one.
Found = tuple[Tensor, Named, Named]


def my_slice(device: torch.device, weights: Named) -> Named:
    """The part of each matrix that belongs to the hidden units of this rank."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    W1 = weights["W1"].tensor_split(world_size, dim=0)[rank]  # columns of W1^T
    W2 = weights["W2"].tensor_split(world_size, dim=1)[rank]  # rows of W2^T
    return {"W1": W1.to(device), "W2": W2.to(device)}


def train_by_hand(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> Found:
    """Train by gradient descent, with the hidden units divided among the ranks."""
    network = Network(my_slice(device, weights))
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    x, y = x.to(device), y.to(device)
    for step in range(steps):
        optimizer.zero_grad()
        part = network(x)  # (n, 1), over the hidden units of this rank
        out = part.detach().clone()
        dist.all_reduce(out)  # over all hidden units
        d = 2 / len(x) * (out - y)  # the derivative of the loss
        part.backward(d)
        if step == 0:
            first, found = out, gradients(network)
        optimizer.step()
    return first, found, parameters(network)


def linear(weight: Tensor) -> nn.Linear:
    """A layer without bias, with its own copy of the initial weight."""
    layer = nn.Linear(*reversed(weight.shape), bias=False, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def train_by_torch(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> Found:
    """The same by torch: a network as for one device, and a plan that splits it."""
    layers = {name: linear(weight) for name, weight in weights.items()}
    network = nn.Sequential(layers["W1"], nn.Tanh(), layers["W2"]).to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # With local outputs, torch would assume slices of equal size, but they may be uneven.
    plan = {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()}
    parallelize_module(network, mesh, plan)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    x, y = x.to(device), y.to(device)
    for step in range(steps):
        optimizer.zero_grad()
        out = network(x)
        mse_loss(out, y).backward()
        if step == 0:
            first = out.detach()
            found = {name: layer.weight.grad.full_tensor() for name, layer in layers.items()}
        optimizer.step()
    trained = {name: layer.weight.detach().full_tensor() for name, layer in layers.items()}
    return first, found, trained
