"""Expected values of lesson 07: one device's arithmetic in NumPy, for two networks."""

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


def _terms_of_errors(batch, features, hidden, seed):
    return _terms(batch, features, hidden, seed)["error"]


def _terms_of_hidden(batch, features, hidden, seed):
    return _terms(batch, features, hidden, seed)["h"][:1]


def _row(named):
    """All numbers of the matrices one after the other."""
    return np.concatenate([matrix.ravel() for matrix in named.values()])


# Network partitioning: eight layers, h_i = tanh(h_{i-1} W_i^T) with h_0 = x and h_8 the output.


def _draw_deep(batch, features, hidden, seed):
    """The eight matrices in their order, the rows and the targets, as the lesson draws them."""
    rng = np.random.default_rng(seed)
    squares = rng.uniform(-0.4, 0.4, (7, features, features)) / features**0.5
    last = rng.uniform(-0.5, 0.5, (1, features)) / features**0.5
    _, x, y = _draw(batch, features, hidden, seed)
    return [*(0.8 * np.eye(features) + squares), last], x, y


def _values(matrices, x):
    """h_0, h_1, ..., h_8."""
    values = [x]
    for W in matrices:
        values.append(np.tanh(values[-1] @ W.T))
    return values


def _gradients_deep(matrices, x, y):
    """From d = 2/n (h_8 - y) back: with G = d (1 - h_i^2), G^T h_{i-1} for W_i, then d <- G W_i."""
    values = _values(matrices, x)
    return [G.T @ h for G, h in _backwards(matrices, values, 2 / len(x) * (values[-1] - y))]


def _backwards(matrices, values, d):
    """G and h_{i-1} for each layer, from the derivative d by h_8."""
    found = []
    for i in reversed(range(len(matrices))):
        G = d * (1 - values[i + 1] ** 2)
        found.insert(0, (G, values[i]))
        d = G @ matrices[i]
    return found


def _terms_of_deep_errors(batch, features, hidden, seed):
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    return abs(_values(matrices, x)[-1]) + abs(y)


def _terms_of_deep_loss(batch, features, hidden, seed):
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    out = _values(matrices, x)[-1]
    return np.mean(2 * abs(out - y) * (abs(out) + abs(y)))


def _terms_of_deep(batch, features, hidden, seed, microbatches=1):
    """For each sample one term, in which h_8 - y is |h_8| + |y|."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    rows = _even(batch, microbatches)
    values = _values(matrices, x[:rows])
    d = 2 / rows * (abs(values[-1]) + abs(y[:rows]))
    return [abs(G).T @ abs(h) for G, h in _backwards(matrices, values, d)]


def _terms_of_schedule(batch, features, hidden, microbatches, seed):
    return _terms_of_deep(batch, features, hidden, seed, microbatches)


def _train_deep(matrices, x, y, steps, lr):
    """`steps` times W_i <- W_i - lr grad L."""
    for _ in range(steps):
        found = _gradients_deep(matrices, x, y)
        matrices = [W - lr * each for W, each in zip(matrices, found, strict=True)]
    return matrices


def _row_deep(matrices):
    return np.concatenate([matrix.ravel() for matrix in matrices])


def _even(batch, microbatches):
    """The rows that the microbatches share evenly."""
    pieces = min(microbatches, batch)
    return pieces * (batch // pieces)


@expect(terms=_terms_of_deep_loss)
def deep_loss(batch, features, hidden, seed):
    """The mean over all rows of (h_8 - y)^2, with h_i = tanh(h_{i-1} W_i^T) and h_0 = x."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    return np.mean((_values(matrices, x)[-1] - y) ** 2)


def busy(world_size, batch, microbatches):
    """Each of W ranks works in 2 m slots, of 2 (m + W - 1), with both schedules."""
    m = min(microbatches, batch)
    return [(world_size * 2 * m, world_size * 2 * (m + world_size - 1))] * 2


def kept(world_size, batch, microbatches):
    """GPipe: all m microbatches; 1F1B: W - 1 - r early ones and one more, and at most m."""
    m = min(microbatches, batch)
    return [[m] * world_size, [min(m, world_size - rank) for rank in range(world_size)]]


def stages(world_size):
    """Rank r has the layers from floor(8 r / W) + 1 up to floor(8 (r + 1) / W)."""
    ends = [8 * rank // world_size for rank in range(world_size + 1)]
    layers = [range(ends[rank] + 1, ends[rank + 1] + 1) for rank in range(world_size)]
    return [" ".join(f"W{i}" for i in each) for each in layers]


@expect(device="cpu", terms=_terms_of_deep_errors)
def pipeline_errors(batch, features, hidden, seed):
    """h_8 - y of all rows in their order, for any stages and microbatches."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    return (_values(matrices, x)[-1] - y)[:, 0]


@expect(device="cpu", terms=_terms_of_deep)
def stage_gradients(batch, features, hidden, seed):
    """From d = 2/n (h_8 - y) back: with G = d (1 - h_i^2), G^T h_{i-1} for W_i, then d <- G W_i."""
    return _row_deep(_gradients_deep(*_draw_deep(batch, features, hidden, seed)))


@expect(device="cpu")
def pipeline_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times W_i <- W_i - lr grad L, with all rows on one device."""
    return _row_deep(_train_deep(*_draw_deep(batch, features, hidden, seed), steps, lr))


@expect(device="cpu", terms=_terms_of_schedule)
def schedule_gradients(batch, features, hidden, microbatches, seed):
    """As on one device, from the rows that the microbatches share evenly."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    rows = _even(batch, microbatches)
    return _row_deep(_gradients_deep(matrices, x[:rows], y[:rows]))


@expect(device="cpu")
def schedule_parameters(batch, features, hidden, microbatches, steps, lr, seed):
    """`steps` steps as on one device, from the rows that the microbatches share evenly."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    rows = _even(batch, microbatches)
    return _row_deep(_train_deep(matrices, x[:rows], y[:rows], steps, lr))


# Splitting within a layer.


def slices(world_size, features, hidden):
    """hidden // W hidden units for each rank, and one more for the first hidden % W ranks."""
    units = [hidden // world_size + (rank < hidden % world_size) for rank in range(world_size)]
    return [[[n, features], [1, n]] for n in units]


@expect(device="cpu", terms=_terms_of_errors)
def tensor_errors(world_size, batch, features, hidden, seed):
    """tanh(x W1^T) W2^T - y of all rows, whole on each rank."""
    weights, x, y = _draw(batch, features, hidden, seed)
    return np.tile(_forward(weights, x)[1] - y, (1, world_size))


@expect(device="cpu", terms=_terms)
def column_row(batch, features, hidden, seed):
    """The gradient of the whole matrices, by the chain rule on one device."""
    return _gradient(*_draw(batch, features, hidden, seed), batch)


@expect(device="cpu")
def tensor_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times W <- W - lr grad L, with whole matrices on one device."""
    weights, x, y = _draw(batch, features, hidden, seed)
    for _ in range(steps):
        found = _gradient(weights, x, y, batch)
        weights = {name: weights[name] - lr * found[name] for name in weights}
    return _row(weights)


@expect(device="cpu", terms=_terms_of_row)
def planned_gradients(batch, features, hidden, seed):
    """The gradient of the whole matrices, by the chain rule on one device."""
    return _row(_gradient(*_draw(batch, features, hidden, seed), batch))


@expect(device="cpu")
def planned_parameters(batch, features, hidden, steps, lr, seed):
    """`steps` times W <- W - lr grad L, with whole matrices on one device."""
    weights, x, y = _draw(batch, features, hidden, seed)
    for _ in range(steps):
        found = _gradient(weights, x, y, batch)
        weights = {name: weights[name] - lr * found[name] for name in weights}
    return _row(weights)


@expect(constant="one block of a large model, for any parameters")
def traffic():
    """2 bytes times 7/4 P, 21/8 P, 2 n d and 7 n d elements; P = 12 d^2, d = 2^12, n = 2^14."""
    d, n = 2**12, 2**14
    return [2e-6 * each for each in (7 / 4 * 12 * d**2, 21 / 8 * 12 * d**2, 2 * n * d, 7 * n * d)]


# Exercises.


def enough(world_size):
    """m / (m + W - 1) >= 9/10 where m >= 9 (W - 1); there is at least one microbatch."""
    return max(1, 9 * (world_size - 1))


@expect(terms=_terms_of_hidden)
def activations(batch, features, hidden, seed):
    """tanh of x W1^T, whose sum over the features is cut into parts; the first row."""
    weights, x, _ = _draw(batch, features, hidden, seed)
    return _forward(weights, x[:1])[0]


@expect(device="cpu")
def sums(world_size, seed):
    """The sums of the first 1, 2, ..., W numbers."""
    numbers = np.random.default_rng(seed).integers(1, 100, world_size)
    return np.cumsum(numbers).astype(float)


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
