"""Expected values of lesson 06: bytes, and the arithmetic of one device, in NumPy."""

import _network as net
import numpy as np

from ci.lesson.expect import expect


@expect(constant="float32 and Adam, for any parameters")
def bytes_a_weight():
    """32 bits are 4 bytes, for a weight, its gradient, Adam's mean of gradients and of squares."""
    return [32 / 8] * 4


@expect(device="cpu", terms=net.terms_of_row)
def ring_gradients(world_size, batch, features, hidden, seed):
    """sum_r (n_r / n) grad L_r: the gradient of the whole batch, W1 row by row, then W2."""
    found = net.gradient(*net.draw(batch, features, hidden, seed), batch)
    return np.tile(net.row(found), (world_size, 1))


def bytes_sent(world_size, features, hidden, dtype):
    """2 (W - 1) chunks of ceil(P / W) elements from each rank; P = hidden * (features + 1)."""
    size = {"float32": 4, "float64": 8}[dtype]
    elements = hidden * (features + 1)
    sent = 2 * (world_size - 1) * -(-elements // world_size) * size
    return [sent] * world_size, elements * size


def weights_held(world_size, features, hidden):
    """Pieces of ceil(hidden / W) rows of W1, while there are rows; and W2's one row on rank 0."""
    piece = -(-hidden // world_size)
    rows = [min(piece, max(0, hidden - rank * piece)) for rank in range(world_size)]
    return [n * features + (rank == 0) * hidden for rank, n in enumerate(rows)]


@expect(device="cpu", terms=net.terms_of_first_and_last)
def fsdp(batch, features, hidden, steps, lr, seed):
    """grad L of the whole batch, and `steps` times W <- W - lr grad L, as on one device."""
    return net.first_and_last(batch, features, hidden, steps, lr, seed)


def zero_bytes(world_size, features, hidden, dtype):
    """P = hidden (features + 1), padded to W shards; one shard of each that its stage shards."""
    size = {"float32": 4, "float64": 8}[dtype]
    shard = -(-hidden * (features + 1) // world_size) * size
    whole = world_size * shard
    stages = range(4)
    return [[shard if stage >= first else whole for first in (3, 2, 1)] for stage in stages]


@expect(device="cpu")
def zero_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times v <- 0.9 v + grad L, W <- W - lr v on one device; the same in each stage."""
    data = net.draw(batch, features, hidden, seed)
    return np.tile(net.row(net.descend(*data, steps, lr, 0.9)[1]), (4, 1))


# Exercises.


@expect(device="cpu")
def halves(world_size, seed):
    """The sum of the rows of all ranks, on each rank."""
    table = np.random.default_rng(seed).integers(1, 100, (world_size, world_size))
    return np.tile(table.sum(axis=0), (world_size, 1))


def largest(world_size):
    """40 GB over 16, 8 + 8/W, 4 + 12/W and 16/W bytes per weight, in billions."""
    W = world_size
    return [40 / 16, 40 / (8 + 8 / W), 40 / (4 + 12 / W), 40 * W / 16]


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
