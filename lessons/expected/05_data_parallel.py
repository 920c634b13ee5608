"""Expected values of lesson 05: one device's arithmetic in NumPy, and what each rank has of it."""

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


def _terms_of_second(batch, features, hidden, seed):
    return _terms(batch, features, hidden, seed)["W2"]


def _terms_of_errors(batch, features, hidden, seed):
    return _terms(batch, features, hidden, seed)["error"]


def _terms_of_loss(batch, features, hidden, seed):
    weights, x, y = _draw(batch, features, hidden, seed)
    terms = _terms_of(weights, x, y, batch)["error"]
    return np.mean(2 * abs(_forward(weights, x)[1] - y) * terms)  # of e^2, where e has errors


def _terms_of_shards(world_size, batch, features, hidden, seed):
    weights, x, y = _draw(batch, features, hidden, seed)
    parts = ((x[rows], y[rows], batch) for rows in _rows(batch, world_size))
    return [_terms_of(weights, *part)["W2"] for part in parts]


def _terms_of_locals(world_size, batch, features, hidden, seed):
    weights, x, y = _draw(batch, features, hidden, seed)
    parts = ((x[r], y[r], max(1, r.stop - r.start)) for r in _rows(batch, world_size))
    return np.concatenate([_terms_of(weights, *part)["W2"] for part in parts])


def _terms_of_mean(world_size, batch, features, hidden, seed):
    return _terms_of_locals(world_size, batch, features, hidden, seed).mean(axis=0)


def _terms_of_percent(world_size, batch, features, hidden, seed):
    right = abs(gradient(batch, features, hidden, seed)["W2"]).max()
    percent = unweighted_error(world_size, batch, features, hidden, seed)[1]
    plain = _terms_of_mean(world_size, batch, features, hidden, seed).max()
    whole = _terms_of_second(batch, features, hidden, seed).max()
    return (100 * (plain + whole) + percent * whole) / right  # of a quotient


def _row(named):
    """All numbers of the matrices one after the other."""
    return np.concatenate([matrix.ravel() for matrix in named.values()])


def _rows(batch, world_size):
    """The first batch % world_size ranks hold one row more than the others."""
    sizes = [batch // world_size + (rank < batch % world_size) for rank in range(world_size)]
    ends = np.cumsum(sizes)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _local_gradients(world_size, batch, features, hidden, seed):
    """Each rank's gradient of its own mean, W2 only; zero where it has no rows."""
    weights, x, y = _draw(batch, features, hidden, seed)
    parts = [(x[rows], y[rows]) for rows in _rows(batch, world_size)]
    return np.concatenate([_gradient(weights, *part, max(1, len(part[0])))["W2"] for part in parts])


@expect(terms=_terms_of_loss)
def loss(batch, features, hidden, seed):
    """The mean over all rows of (out - y)^2, with out = tanh(x W1^T) W2^T."""
    weights, x, y = _draw(batch, features, hidden, seed)
    return np.mean((_forward(weights, x)[1] - y) ** 2)


@expect(terms=_terms)
def gradient(batch, features, hidden, seed):
    """d = 2/n (out - y); for W2: d^T h; for W1: G^T x with G_ij = d_i w_j (1 - h_ij^2)."""
    weights, x, y = _draw(batch, features, hidden, seed)
    return _gradient(weights, x, y, batch)


def shards(world_size, batch):
    """n // W rows for each rank, and one more for the first n % W ranks."""
    return [batch // world_size + (rank < batch % world_size) for rank in range(world_size)]


@expect(constant="six rows and four devices, whatever the parameters")
def six_for_four():
    """chunk: pieces of ceil(6 / 4) = 2 rows, so 3 pieces; tensor_split: 6 = 2 + 2 + 1 + 1."""
    return [2, 2, 2], [2, 2, 1, 1]


@expect(terms=_terms_of_errors)
def gathered(batch, features, hidden, seed):
    """The outputs of all rows in their order, as if there were one device."""
    weights, x, _ = _draw(batch, features, hidden, seed)
    return _forward(weights, x)[1][:, 0]


@expect(terms=_terms_of_shards)
def shard_gradients(world_size, batch, features, hidden, seed):
    """The terms 2/n (out - y) h^T of the whole batch's gradient, summed over each shard's rows."""
    weights, x, y = _draw(batch, features, hidden, seed)
    return [_gradient(weights, x[r], y[r], batch)["W2"] for r in _rows(batch, world_size)]


@expect(terms=_terms)
def summed(batch, features, hidden, seed):
    """The shards' sums add up to the gradient of the whole batch."""
    return gradient(batch, features, hidden, seed)


def world(world_size, device):
    """Ranks 0 ... W - 1 of W, over gloo on the CPU and NCCL on CUDA."""
    backend = "nccl" if device.startswith("cuda") else "gloo"
    return [(rank, world_size, backend) for rank in range(world_size)]


def process_ids(world_size):
    """W ranks and the notebook's kernel: W + 1 processes."""
    return world_size + 1


@expect(device="cpu")
def all_reduced(world_size):
    """1 + 2 + ... + W = W (W + 1) / 2, on each rank."""
    return np.full(world_size, world_size * (world_size + 1) // 2)


@expect(device="cpu", rel=0)
def integer_gradient(world_size, batch, features, seed):
    """X^T (X w - t) over all rows, in whole numbers, so without rounding; the same on each rank."""
    rng = np.random.default_rng(seed)
    X = rng.integers(1, 5, (batch, features))
    w = rng.integers(-3, 0, features)
    t = rng.integers(0, 4, batch)
    return np.tile((X.T @ (X @ w - t)).astype(float), (world_size, 1))


@expect(device="cpu", terms=_terms_of_locals)
def local_gradients(world_size, batch, features, hidden, seed):
    """2/n_r times the sum of (out - y) h^T over the n_r rows of rank r: its own mean, alone."""
    return _local_gradients(world_size, batch, features, hidden, seed)


@expect(device="cpu", terms=_terms_of_mean)
def unweighted(world_size, batch, features, hidden, seed):
    """The plain mean of the ranks' own gradients, 1/W sum_r, on each rank."""
    local = _local_gradients(world_size, batch, features, hidden, seed)
    return np.tile(local.mean(axis=0), (world_size, 1))


@expect(device="cpu", terms=_terms_of_percent)
def unweighted_error(world_size, batch, features, hidden, seed):
    """100 max|mean of local gradients - right gradient| / max|right gradient|, beside 100."""
    right = gradient(batch, features, hidden, seed)["W2"][0]
    plain = _local_gradients(world_size, batch, features, hidden, seed).mean(axis=0)
    return 100 * np.array([1.0, np.abs(plain - right).max() / np.abs(right).max()])


@expect(device="cpu", terms=_terms_of_second)
def ddp_gradients(world_size, batch, features, hidden, seed):
    """1/W sum_r (n_r W / n) grad L_r = 1/n sum_r n_r grad L_r: the whole batch's, on each rank."""
    return np.tile(gradient(batch, features, hidden, seed)["W2"], (world_size, 1))


@expect(device="cpu", terms=_terms)
def whole_gradient(batch, features, hidden, seed):
    """The gradient of the whole batch, both layers, by the chain rule on one device."""
    return gradient(batch, features, hidden, seed)


@expect(device="cpu", zero=True, constant="two equal gradients differ by 0, whatever they are")
def ranks_agree():
    """All ranks receive the same sum, so their gradients are the same to the last bit."""
    return np.float64(0)


@expect(device="cpu")
def parameters_after_steps(batch, features, hidden, steps, lr, seed):
    """`steps` times W <- W - lr grad L, with the gradient of the whole batch on one device."""
    weights, x, y = _draw(batch, features, hidden, seed)
    for _ in range(steps):
        found = _gradient(weights, x, y, batch)
        weights = {name: weights[name] - lr * found[name] for name in weights}
    return _row(weights)


# Exercises.


@expect(terms=_terms_of_second)
def in_pieces(batch, features, hidden, seed):
    """sum over the pieces of (n_piece / n) grad L_piece: the gradient of the whole batch."""
    return gradient(batch, features, hidden, seed)["W2"]
