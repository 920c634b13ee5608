"""Expected values of lesson 07: one device's arithmetic in NumPy, for two networks."""

import _network as net
import numpy as np

from ci.lesson.expect import expect


def _terms_of_errors(batch, features, hidden, seed):
    return net.terms(batch, features, hidden, seed)["error"]


def _terms_of_hidden(batch, features, hidden, seed):
    return net.terms(batch, features, hidden, seed)["h"][:1]


# Network partitioning: eight layers, h_i = tanh(h_{i-1} W_i^T) with h_0 = x and h_8 the output.


def _draw_deep(batch, features, hidden, seed):
    """The eight matrices in their order, the samples and the targets, as the lesson draws them."""
    rng = np.random.default_rng(seed)
    squares = rng.uniform(-0.4, 0.4, (7, features, features)) / features**0.5
    last = rng.uniform(-0.5, 0.5, (1, features)) / features**0.5
    _, x, y = net.draw(batch, features, hidden, seed)
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
    even = _even(batch, microbatches)
    values = _values(matrices, x[:even])
    d = 2 / even * (abs(values[-1]) + abs(y[:even]))
    return [abs(G).T @ abs(h) for G, h in _backwards(matrices, values, d)]


def _terms_of_schedule(batch, features, hidden, microbatches, steps, lr, seed):
    trained = schedule(batch, features, hidden, microbatches, steps, lr, seed)[1]
    return _terms_of_deep(batch, features, hidden, seed, microbatches), abs(trained)


def _terms_of_pipeline(batch, features, hidden, steps, lr, seed):
    trained = pipeline(batch, features, hidden, steps, lr, seed)[1]
    return _terms_of_deep(batch, features, hidden, seed), abs(trained)


def _train_deep(matrices, x, y, steps, lr):
    """`steps` times W_i <- W_i - lr grad L."""
    for _ in range(steps):
        found = _gradients_deep(matrices, x, y)
        matrices = [W - lr * each for W, each in zip(matrices, found, strict=True)]
    return matrices


def _row_deep(matrices):
    return np.concatenate([matrix.ravel() for matrix in matrices])


def _even(batch, microbatches):
    """The samples that the microbatches share evenly."""
    pieces = min(microbatches, batch)
    return pieces * (batch // pieces)


@expect(terms=_terms_of_deep_loss)
def deep_loss(batch, features, hidden, seed):
    """The mean over all samples of (h_8 - y)^2, with h_i = tanh(h_{i-1} W_i^T) and h_0 = x."""
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
    """h_8 - y of all samples in their order, for any stages and microbatches."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    return (_values(matrices, x)[-1] - y)[:, 0]


def _first_and_last(matrices, x, y, steps, lr):
    """The gradients of the first step, and the weights after the last one, in two rows."""
    first = _gradients_deep(matrices, x, y)
    return _row_deep(first), _row_deep(_train_deep(matrices, x, y, steps, lr))


@expect(device="cpu", terms=_terms_of_pipeline)
def pipeline(batch, features, hidden, steps, lr, seed):
    """From d = 2/n (h_8 - y) back: with G = d (1 - h_i^2), G^T h_{i-1} for W_i, then d <- G W_i;
    `steps` times W_i <- W_i - lr grad L, with all samples on one device."""
    return _first_and_last(*_draw_deep(batch, features, hidden, seed), steps, lr)


@expect(device="cpu", terms=_terms_of_schedule)
def schedule(batch, features, hidden, microbatches, steps, lr, seed):
    """As on one device, from the samples that the microbatches share evenly."""
    matrices, x, y = _draw_deep(batch, features, hidden, seed)
    even = _even(batch, microbatches)
    return _first_and_last(matrices, x[:even], y[:even], steps, lr)


# Splitting within a layer.


def slices(world_size, features, hidden):
    """hidden // W hidden units for each rank, and one more for the first hidden % W ranks."""
    units = [hidden // world_size + (rank < hidden % world_size) for rank in range(world_size)]
    return [[[n, features], [1, n]] for n in units]


@expect(device="cpu", terms=_terms_of_errors)
def tensor_errors(world_size, batch, features, hidden, seed):
    """tanh(x W1^T) W2^T - y of all samples, whole on each rank."""
    weights, x, y = net.draw(batch, features, hidden, seed)
    return np.tile(net.forward(weights, x)[1] - y, (1, world_size))


@expect(device="cpu", terms=net.terms_of_first_and_last)
def column_row(batch, features, hidden, steps, lr, seed):
    """grad L of the whole matrices; `steps` times W <- W - lr grad L; both as on one device."""
    return net.first_and_last(batch, features, hidden, steps, lr, seed)


@expect(device="cpu", terms=net.terms_of_first_and_last)
def planned(batch, features, hidden, steps, lr, seed):
    """grad L of the whole matrices; `steps` times W <- W - lr grad L; both as on one device."""
    return net.first_and_last(batch, features, hidden, steps, lr, seed)


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
    """tanh of x W1^T, whose sum over the features is divided into parts; the first sample."""
    weights, x, _ = net.draw(batch, features, hidden, seed)
    return net.forward(weights, x[:1])[0]


@expect(device="cpu")
def sums(world_size, seed):
    """The sums of the first 1, 2, ..., W numbers."""
    return np.cumsum(np.random.default_rng(seed).integers(1, 100, world_size))


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
