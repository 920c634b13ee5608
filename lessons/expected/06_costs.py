"""Expected values of lesson 06: bytes, and the arithmetic of one device, in NumPy."""

import numpy as np

from ci.lesson.expect import expect


def _draw(batch, features, hidden, seed):
    """The lesson's draws, in its order."""
    rng = np.random.default_rng(seed)
    W1 = rng.uniform(-1, 1, (hidden, features)) / hidden**0.5
    W2 = rng.uniform(-1, 1, (1, hidden)) / hidden**0.5
    x = rng.uniform(-1, 1, (batch, features)) / features**0.5
    y = np.where(x.sum(axis=1, keepdims=True) > 0, 0.25, -0.25)
    return {"W1": W1, "W2": W2}, x, y


def _forward(weights, x):
    h = np.tanh(x @ weights["W1"].T)
    return h, h @ weights["W2"].T


def _gradient(weights, x, y, n):
    """The rows' part of the gradient of a mean squared error over n rows, by the chain rule."""
    h, out = _forward(weights, x)
    d = 2 / n * (out - y)
    return {"W1": (d * weights["W2"] * (1 - h**2)).T @ x, "W2": d.T @ h}


def _terms(batch, features, hidden, seed):
    """The sizes of the terms of hidden values, outputs and gradients; the slope of tanh is <= 1."""
    return _terms_of(*_draw(batch, features, hidden, seed), batch)


def _terms_of(weights, x, y, n):
    W1, W2 = abs(weights["W1"]), abs(weights["W2"])
    h = abs(x) @ W1.T
    out = h @ W2.T
    d = 2 / n * (out + abs(y))
    return {"W1": (d * W2).T @ abs(x), "W2": d.T @ h, "h": h, "error": out + abs(y)}


def _terms_of_row(batch, features, hidden, seed):
    terms = _terms(batch, features, hidden, seed)
    return [terms["W1"], terms["W2"]]


def _row(named):
    """All numbers of the matrices one after the other."""
    return np.concatenate([matrix.ravel() for matrix in named.values()])


@expect(constant="float32 and Adam, for any parameters")
def bytes_a_weight():
    """32 bits are 4 bytes, for a weight, its gradient, Adam's mean of gradients and of squares."""
    return [32 / 8] * 4


@expect(device="cpu", terms=_terms_of_row)
def ring_gradients(world_size, batch, features, hidden, seed):
    """sum_r (n_r / n) grad L_r: the gradient of the whole batch, W1 row by row, then W2."""
    return np.tile(_row(_gradient(*_draw(batch, features, hidden, seed), batch)), (world_size, 1))


def bytes_sent(world_size, features, hidden, dtype):
    """2 (W - 1) chunks of ceil(P / W) numbers from each rank; P = hidden * (features + 1)."""
    size = {"float32": 4, "float64": 8}[dtype]
    numbers = hidden * (features + 1)
    return [2 * (world_size - 1) * -(-numbers // world_size) * size] * world_size, numbers * size


def weights_held(world_size, features, hidden):
    """Pieces of ceil(hidden / W) rows of W1, while there are rows; and W2's one row on rank 0."""
    piece = -(-hidden // world_size)
    rows = [min(piece, max(0, hidden - rank * piece)) for rank in range(world_size)]
    return [n * features + (rank == 0) * hidden for rank, n in enumerate(rows)]


@expect(device="cpu", terms=_terms_of_row)
def sharded_gradients(batch, features, hidden, seed):
    """1/n sum_r n_r grad L_r, as in DDP: the gradient of the whole batch, both layers."""
    return _row(_gradient(*_draw(batch, features, hidden, seed), batch))


@expect(device="cpu")
def sharded_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times W <- W - lr grad L, with whole matrices and the whole batch on one device."""
    weights, x, y = _draw(batch, features, hidden, seed)
    for _ in range(steps):
        found = _gradient(weights, x, y, batch)
        weights = {name: weights[name] - lr * found[name] for name in weights}
    return _row(weights)


def zero_bytes(world_size, features, hidden, dtype):
    """P = hidden (features + 1), filled up to W shards; a shard in stages 3, 2 and up, 1 and up."""
    size = {"float32": 4, "float64": 8}[dtype]
    shard = -(-hidden * (features + 1) // world_size) * size
    whole = world_size * shard
    stages = range(4)
    return [[shard if stage >= first else whole for first in (3, 2, 1)] for stage in stages]


@expect(device="cpu")
def zero_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times v <- 0.9 v + grad L, W <- W - lr v on one device; the same in each stage."""
    weights, x, y = _draw(batch, features, hidden, seed)
    speed = {name: np.zeros_like(W) for name, W in weights.items()}
    for _ in range(steps):
        found = _gradient(weights, x, y, batch)
        speed = {name: 0.9 * speed[name] + found[name] for name in weights}
        weights = {name: weights[name] - lr * speed[name] for name in weights}
    return np.tile(_row(weights), (4, 1))


# Exercises.


@expect(device="cpu")
def halves(world_size, seed):
    """The sum over the ranks' rows, on each rank."""
    table = np.random.default_rng(seed).integers(1, 100, (world_size, world_size))
    return np.tile(table.sum(axis=0).astype(float), (world_size, 1))


def largest(world_size):
    """40 GB over 16, 8 + 8/W, 4 + 12/W and 16/W bytes per weight, in billions."""
    W = world_size
    return [40 / 16, 40 / (8 + 8 / W), 40 / (4 + 12 / W), 40 * W / 16]


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
