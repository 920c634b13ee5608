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


@expect(device="cpu", terms=_terms_of_second)
def ddp_gradients(world_size, batch, features, hidden, seed):
    """1/W sum_r (n_r W / n) grad L_r = 1/n sum_r n_r grad L_r: the whole batch's, on each rank."""
    return np.tile(gradient(batch, features, hidden, seed)["W2"], (world_size, 1))


@expect(device="cpu", zero=True, constant="two equal gradients differ by 0, for any values")
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


def _terms_of_losses(batch, features, hidden, steps, lr, seed):
    terms = _terms_of_loss(batch, features, hidden, seed)
    return np.maximum(losses(batch, features, hidden, steps, lr, seed), terms)


@expect(device="cpu", terms=_terms_of_losses)
def losses(batch, features, hidden, steps, lr, seed):
    """The mean of (out - y)^2 over all samples before each of the updates W <- W - lr grad L."""
    weights, x, y = _draw(batch, features, hidden, seed)
    found = []
    for _ in range(steps):
        found.append(np.mean((_forward(weights, x)[1] - y) ** 2))
        gradient = _gradient(weights, x, y, batch)
        weights = {name: weights[name] - lr * gradient[name] for name in weights}
    return np.array(found)


def _terms_of_accumulated(batch, features, hidden, seed):
    return [1], _terms_of_second(batch, features, hidden, seed)


@expect(device="cpu", terms=_terms_of_accumulated)
def accumulated(world_size, batch, features, hidden, seed):
    """One all-reduce, in the last pass; 1/W sum_r sum_k (W / n) of the pieces' sums is grad L."""
    gradient_2 = gradient(batch, features, hidden, seed)["W2"]
    return [1] * world_size, np.tile(gradient_2, (world_size, 1))


def buckets(world_size, dtype):
    """Layers of 512 * 512 elements; a bucket is sent as soon as it has 2 MiB or more."""
    layer, limit = 512 * 512 * {"float32": 4, "float64": 8}[dtype], 2 * 2**20
    per_bucket = -(-limit // layer)
    return [[per_bucket * layer] * (8 // per_bucket)] * world_size


# The script: two layers with tanh between them, trained by momentum on points of two half circles.


def _half_circles(seed):
    """The script's draws, in its order."""
    rng = np.random.default_rng(seed)
    label = np.arange(1680) % 2
    angle = np.pi * rng.uniform(0, 1, 1680)
    center = np.stack([label - 0.5, 0.5 * label - 0.25], axis=1)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 - 2 * label)[:, None]
    return center + circle + rng.normal(0, 0.1, (1680, 2)), label


def _script_gradients(weights, x, y):
    """With d = (sigmoid(o) - y) / n: d^T h, sum d, and with G = d w (1 - h^2): G^T x, sum G."""
    h = np.tanh(x @ weights["0.weight"].T + weights["0.bias"])
    o = h @ weights["2.weight"].T + weights["2.bias"]
    d = (1 / (1 + np.exp(-o)) - y[:, None]) / len(x)
    G = d * weights["2.weight"] * (1 - h**2)
    layers = {"0.weight": G.T @ x, "0.bias": G.sum(axis=0)}
    return layers | {"2.weight": d.T @ h, "2.bias": d.sum(axis=0)}


@expect(device="cpu", constant="the network of the script, for any parameters")
def initial():
    """16 units with 2 inputs and a bias, and one output with 16 inputs and a bias: 65 elements."""
    return np.ones(16 * (2 + 1) + (16 + 1))


@expect(device="cpu", constant="the shape of the script's data, for any parameters")
def orders():
    """An order of the 1680 samples for each of two epochs."""
    return np.zeros((2, 1680), int)


@expect(device="cpu")
def script_weights(seed, initial, orders):
    """Per batch of 840: v <- 0.9 v + grad L, W <- W - 0.1 v, with all samples of the batch."""
    x, y = _half_circles(seed)
    shapes = {"0.weight": (16, 2), "0.bias": (16,), "2.weight": (1, 16), "2.bias": (1,)}
    parts = np.split(np.asarray(initial, float), [32, 48, 64])
    weights = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    speed = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for batch in np.reshape(orders, (-1, 840)):
        found = _script_gradients(weights, x[batch], y[batch])
        speed = {name: 0.9 * speed[name] + found[name] for name in found}
        weights = {name: weights[name] - 0.1 * speed[name] for name in found}
    return _row(weights)


# Exercises.


@expect(device="cpu")
def collected(world_size, seed):
    """The W numbers in the order of the ranks, on each of the W ranks."""
    numbers = np.random.default_rng(seed).integers(1, 100, world_size).astype(float)
    return np.tile(numbers, (world_size, 1))


def _terms_of_repaired(batch, features, hidden, lr, seed):
    _, x, y = _draw(batch, features, hidden, seed)
    return lr * 2 / batch * (abs(x).T @ abs(y))[:, 0]


@expect(device="cpu", terms=_terms_of_repaired)
def repaired(world_size, batch, features, hidden, lr, seed):
    """0 - lr 2/n X^T (X 0 - y) = lr 2/n X^T y, on each rank."""
    _, x, y = _draw(batch, features, hidden, seed)
    return np.tile(lr * 2 / batch * (x.T @ y)[:, 0], (world_size, 1))


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
