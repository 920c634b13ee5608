"""A rank program for FSDP: each rank keeps a shard of the weights."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from parallel.data_parallel import local_loss, my_samples
from parallel.network import Named, Network, gradients, parameters


def train_sharded(
    device: torch.device, weights: Named, x: Tensor, y: Tensor, steps: int, lr: float
) -> tuple[int, Named, Named]:
    """How many weights this rank holds; the gradients of the first step; the trained weights."""
    n = len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
    share = len(x) * dist.get_world_size() / n
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    network = fully_shard(Network(weights).to(device), mesh=mesh)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss = share * local_loss(network, x, y)  # collects the shards of the weights
        loss.backward()  # averages the gradients, and leaves a shard of them on each rank
        if step == 0:
            found = {name: shard.full_tensor() for name, shard in gradients(network).items()}
        optimizer.step()
    held = sum(weight.to_local().numel() for weight in network.parameters())
    trained = {name: shard.full_tensor() for name, shard in parameters(network).items()}
    return held, found, trained
