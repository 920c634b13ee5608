r"""Train a network with DistributedDataParallel: a complete script for torchrun.

On one machine, with two processes; a second call resumes from the checkpoint:

    torchrun --nproc-per-node 2 train.py

On several machines, run these lines on each of them, where HEAD is the name of the first. Training
goes on if a machine fails, and the machines need no common disk. (Without the variable, restarted
processes look for each other at the old addresses: github.com/pytorch/pytorch/issues/135712.)

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nnodes 1:2 --nproc-per-node 2 --max-restarts 3 --rdzv-id 1 \
        --rdzv-backend c10d --rdzv-endpoint HEAD:29400 train.py

Each step uses the same samples for any number of processes, so that the weights are those of
one device, up to rounding.
"""

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, it would keep the process group alive
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    """Join the other processes, train with them, and leave."""
    options = parse_options()
    device = join_process_group()
    if options.batch % dist.get_world_size() or options.samples % options.batch:
        raise SystemExit("--batch must divide --samples and be a multiple of the world size")
    train(options, device)  # returns without the DDP object, which must end before the group
    dist.destroy_process_group()


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Train a network on all processes of torchrun.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64, help="samples per step, of all processes")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    return parser.parse_args()


def join_process_group() -> torch.device:
    """Meet the other processes, and return the device of this one."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))  # number on this machine
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=2))  # 10 or 30 by default
    return device


def make_data(samples: int, seed: int, dtype: torch.dtype) -> TensorDataset:
    """Points on two noisy half circles, and the number of their half circle, 0 or 1."""
    rng = np.random.default_rng(seed)
    label = np.arange(samples) % 2
    angle = np.pi * rng.uniform(0, 1, samples)
    center = np.stack([label - 0.5, 0.5 * label - 0.25], axis=1)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 - 2 * label)[:, None]
    points = center + circle + rng.normal(0, 0.1, (samples, 2))
    return TensorDataset(torch.tensor(points, dtype=dtype), torch.tensor(label, dtype=dtype))


def make_network(seed: int, dtype: torch.dtype) -> nn.Module:
    """A network that draws a curve between the half circles."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)


def train(options: argparse.Namespace, device: torch.device) -> None:
    """Train from the newest checkpoint, if there is one, to the last epoch."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    dtype = getattr(torch, options.dtype)
    data = make_data(options.samples, options.seed, dtype)
    sampler = DistributedSampler(data, seed=options.seed)  # rank r: samples r, r + W, r + 2W, …
    loader = DataLoader(data, batch_size=options.batch // world_size, sampler=sampler)
    network = make_network(options.seed, dtype).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=0.9)
    step = load_checkpoint(options.checkpoint, network, optimizer, device)
    replica = DistributedDataParallel(network)

    for epoch in range(step // len(loader), options.epochs):
        sampler.set_epoch(epoch)  # otherwise each epoch would have the same order
        total = torch.zeros(2, device=device)  # sum of the losses, number of samples
        for i, (x, y) in enumerate(loader):
            if epoch * len(loader) + i < step:
                continue  # done before the interruption
            x, y = x.to(device), y.to(device)
            loss = binary_cross_entropy_with_logits(replica(x)[:, 0], y)
            optimizer.zero_grad()
            loss.backward()  # averages the gradients of all processes
            optimizer.step()
            step += 1
            total += torch.tensor([loss.item() * len(x), len(x)], device=device)
            if os.environ["LOCAL_RANK"] == "0":  # one process per machine
                save_checkpoint(options.checkpoint, step, network, optimizer)
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: loss {total[0] / total[1]:.4f}", flush=True)


def save_checkpoint(
    path: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Replace the checkpoint as a whole, so that an interruption never leaves half of one."""
    state = {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    unfinished = path.with_name(f"{path.name}.{dist.get_rank()}")
    torch.save(state, unfinished)
    unfinished.replace(path)


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Load the newest checkpoint of all machines, and return the number of its finished steps."""
    state: dict[str, Any] = {"step": 0}
    if path.exists():
        state = torch.load(path, map_location="cpu")
    steps: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(steps, state["step"])
    newest = [state]
    dist.broadcast_object_list(newest, src=steps.index(max(steps)), device=device)
    state = newest[0]
    if state["step"]:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    main()
