"""Rank programs that reduce gradients around a ring of ranks, and count the bytes they send."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp
from torch.nn.functional import pad

from parallel.data_parallel import local_loss, my_samples
from parallel.network import Named, Network, gradients, row


def exchange(chunk: Tensor) -> Tensor:
    """Send a chunk to the next rank in the ring, and receive one from the previous rank."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    received = torch.empty_like(chunk)
    sending = P2POp(dist.isend, chunk, (rank + 1) % world_size)
    receiving = P2POp(dist.irecv, received, (rank - 1) % world_size)
    for request in dist.batch_isend_irecv([sending, receiving]):  # both at once
        request.wait()
    return received


def all_reduce(vector: Tensor) -> tuple[Tensor, int]:
    """The sum of a vector over all ranks, and the bytes that this rank sent for it."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    size = -(-len(vector) // world_size)  # of a chunk, rounded up
    chunks = list(pad(vector, (0, world_size * size - len(vector))).split(size))
    sent = 0
    for step in range(2 * (world_size - 1)):
        outgoing, incoming = (rank - step) % world_size, (rank - step - 1) % world_size
        received = exchange(chunks[outgoing])
        sent += chunks[outgoing].nbytes
        if step < world_size - 1:  # reduce-scatter: the sums grow
            chunks[incoming] = chunks[incoming] + received
        else:  # all-gather: the complete sums go around once more
            chunks[incoming] = received
    return torch.cat(chunks)[: len(vector)], sent


def ring_gradients(
    device: torch.device, weights: Named, x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    """The gradient over all samples as a vector, and the bytes that this rank sent."""
    n = len(x)
    x, y = my_samples(x, device), my_samples(y, device)  # (n_local, features), (n_local, 1)
    network = Network(weights).to(device)
    (len(x) / n * local_loss(network, x, y)).backward()
    return all_reduce(row(gradients(network)))
