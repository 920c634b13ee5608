"""Expected values of lesson 05: one device's arithmetic in NumPy, and what each rank has of it."""

import _network as net
import numpy as np

from ci.lesson.expect import expect


def _terms_of_second(batch, features, hidden, seed):
    return net.terms(batch, features, hidden, seed)["W2"]


def _terms_of_loss(batch, features, hidden, seed):
    weights, x, y = net.draw(batch, features, hidden, seed)
    terms = net.terms_of(weights, x, y, batch)["error"]
    return np.mean(2 * abs(net.forward(weights, x)[1] - y) * terms)  # of e^2, where e has errors


def _terms_of_locals(world_size, batch, features, hidden, seed):
    weights, x, y = net.draw(batch, features, hidden, seed)
    parts = ((x[r], y[r], max(1, r.stop - r.start)) for r in _rows(batch, world_size))
    return np.concatenate([net.terms_of(weights, *part)["W2"] for part in parts])


def _terms_of_mean(world_size, batch, features, hidden, seed):
    return _terms_of_locals(world_size, batch, features, hidden, seed).mean(axis=0)


def _rows(batch, world_size):
    """The first batch % world_size ranks hold one sample more than the others."""
    sizes = [batch // world_size + (rank < batch % world_size) for rank in range(world_size)]
    ends = np.cumsum(sizes)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _local_gradients(world_size, batch, features, hidden, seed):
    """Each rank's gradient of its own mean, for W2; zero where it has no samples."""
    weights, x, y = net.draw(batch, features, hidden, seed)
    parts = ((x[r], y[r], max(1, r.stop - r.start)) for r in _rows(batch, world_size))
    return np.concatenate([net.gradient(weights, *part)["W2"] for part in parts])


@expect(terms=_terms_of_loss)
def loss(batch, features, hidden, seed):
    """The mean over all samples of (out - y)^2, with out = tanh(x W1^T) W2^T."""
    weights, x, y = net.draw(batch, features, hidden, seed)
    return np.mean((net.forward(weights, x)[1] - y) ** 2)


@expect(terms=net.terms_of_row)
def gradient(batch, features, hidden, seed):
    """d = 2/n (out - y); for W1: G^T x with G_ij = d_i w_j (1 - h_ij^2); for W2: d^T h."""
    return net.row(net.gradient(*net.draw(batch, features, hidden, seed), batch))


def _second_gradient(batch, features, hidden, seed):
    return net.gradient(*net.draw(batch, features, hidden, seed), batch)["W2"]


def world(world_size, device):
    """Ranks 0 ... W - 1 of W, gloo on the CPU and NCCL on CUDA, 1 + 2 + ... + W = W (W + 1) / 2."""
    backend = "nccl" if device.startswith("cuda") else "gloo"
    total = world_size * (world_size + 1) // 2
    return [(rank, world_size, backend, total) for rank in range(world_size)]


@expect(device="cpu", rel=0)
def integer_gradient(world_size, batch, features, seed):
    """X^T (X w - t) over all samples, in integers, so without rounding; the same on each rank."""
    rng = np.random.default_rng(seed)
    X = rng.integers(1, 5, (batch, features))
    w = rng.integers(-3, 0, features)
    t = rng.integers(0, 4, batch)
    return np.tile((X.T @ (X @ w - t)).astype(float), (world_size, 1))


@expect(device="cpu", terms=_terms_of_locals)
def local_gradients(world_size, batch, features, hidden, seed):
    """2/n_r times the sum of (out - y) h^T over the n_r samples of rank r: its own mean, alone."""
    return _local_gradients(world_size, batch, features, hidden, seed)


@expect(device="cpu", terms=_terms_of_mean)
def unweighted(world_size, batch, features, hidden, seed):
    """The plain mean of the ranks' own gradients, 1/W sum_r, on each rank."""
    local = _local_gradients(world_size, batch, features, hidden, seed)
    return np.tile(local.mean(axis=0), (world_size, 1))


@expect(device="cpu", terms=_terms_of_second)
def ddp_gradients(world_size, batch, features, hidden, seed):
    """1/W sum_r (n_r W / n) grad L_r = 1/n sum_r n_r grad L_r: the whole batch's, on each rank."""
    return np.tile(_second_gradient(batch, features, hidden, seed), (world_size, 1))


@expect(device="cpu", zero=True, constant="two equal gradients differ by 0, for any values")
def ranks_agree():
    """All ranks receive the same sum, so their gradients are the same to the last bit."""
    return np.float64(0)


def _terms_of_losses(batch, features, hidden, steps, lr, seed):
    terms = _terms_of_loss(batch, features, hidden, seed)
    return np.maximum(losses(batch, features, hidden, steps, lr, seed), terms)


@expect(device="cpu", terms=_terms_of_losses)
def losses(batch, features, hidden, steps, lr, seed):
    """The mean of (out - y)^2 over all samples before each of the updates W <- W - lr grad L."""
    return net.descend(*net.draw(batch, features, hidden, seed), steps, lr)[0]


@expect(device="cpu")
def parameters_after_steps(batch, features, hidden, steps, lr, seed):
    """`steps` times W <- W - lr grad L, with the gradient of the whole batch on one device."""
    return net.row(net.descend(*net.draw(batch, features, hidden, seed), steps, lr)[1])


def _terms_of_accumulated(batch, features, hidden, seed):
    return [1], _terms_of_second(batch, features, hidden, seed)


@expect(device="cpu", terms=_terms_of_accumulated)
def accumulated(world_size, batch, features, hidden, seed):
    """One all-reduce, in the last pass; 1/W sum_r sum_k (W / n) of the pieces' sums is grad L."""
    return [1] * world_size, ddp_gradients(world_size, batch, features, hidden, seed)


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
    return net.row(weights)


# Exercises.


@expect(device="cpu")
def collected(world_size, seed):
    """The W numbers in the order of the ranks, on each of the W ranks."""
    return np.tile(np.random.default_rng(seed).integers(1, 100, world_size), (world_size, 1))


def _terms_of_repaired(batch, features, hidden, lr, seed):
    _, x, y = net.draw(batch, features, hidden, seed)
    return lr * 2 / batch * (abs(x).T @ abs(y))[:, 0]


@expect(device="cpu", terms=_terms_of_repaired)
def repaired(world_size, batch, features, hidden, lr, seed):
    """0 - lr 2/n X^T (X 0 - y) = lr 2/n X^T y, on each rank."""
    _, x, y = net.draw(batch, features, hidden, seed)
    return np.tile(lr * 2 / batch * (x.T @ y)[:, 0], (world_size, 1))


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
