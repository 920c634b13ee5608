"""For the oracles of lessons 05 to 07: the network of two layers and its gradient, in NumPy."""

import numpy as np


def draw(batch, features, hidden, seed):
    """Weights, samples and targets, as `make_task` draws them."""
    rng = np.random.default_rng(seed)
    W1 = rng.uniform(-1, 1, (hidden, features)) / hidden**0.5
    W2 = rng.uniform(-1, 1, (1, hidden)) / hidden**0.5
    x = rng.uniform(-1, 1, (batch, features)) / features**0.5
    y = np.where(x.sum(axis=1, keepdims=True) > 0, 0.25, -0.25)
    return {"W1": W1, "W2": W2}, x, y


def forward(weights, x):
    """The activations and the output."""
    h = np.tanh(x @ weights["W1"].T)
    return h, h @ weights["W2"].T


def gradient(weights, x, y, n):
    """The part of these samples in the gradient of a mean squared error over n samples."""
    h, out = forward(weights, x)
    d = 2 / n * (out - y)
    return {"W1": (d * weights["W2"] * (1 - h**2)).T @ x, "W2": d.T @ h}


def descend(weights, x, y, steps, lr, momentum=0.0):
    """The losses of `steps` times v <- momentum v + grad L, W <- W - lr v; the last weights."""
    losses, speed = [], {name: np.zeros_like(W) for name, W in weights.items()}
    for _ in range(steps):
        losses.append(np.mean((forward(weights, x)[1] - y) ** 2))
        found = gradient(weights, x, y, len(x))
        speed = {name: momentum * speed[name] + found[name] for name in weights}
        weights = {name: weights[name] - lr * speed[name] for name in weights}
    return np.array(losses), weights


def row(named):
    """All elements of the matrices, one after the other."""
    return np.concatenate([matrix.ravel() for matrix in named.values()])


def first_and_last(batch, features, hidden, steps, lr, seed):
    """grad L of the whole batch; `steps` times W <- W - lr grad L; both as on one device."""
    data = draw(batch, features, hidden, seed)
    return row(gradient(*data, batch)), row(descend(*data, steps, lr)[1])


def terms_of(weights, x, y, n):
    """The sizes of the terms of gradients, activations and errors; the slope of tanh is <= 1."""
    W1, W2 = abs(weights["W1"]), abs(weights["W2"])
    h = abs(x) @ W1.T
    out = h @ W2.T
    d = 2 / n * (out + abs(y))
    return {"W1": (d * W2).T @ abs(x), "W2": d.T @ h, "h": h, "error": out + abs(y)}


def terms(batch, features, hidden, seed):
    """These sizes for the lesson's draws."""
    return terms_of(*draw(batch, features, hidden, seed), batch)


def terms_of_row(batch, features, hidden, seed):
    """These sizes for the gradients of both matrices in one row."""
    found = terms(batch, features, hidden, seed)
    return [found["W1"], found["W2"]]


def terms_of_first_and_last(batch, features, hidden, steps, lr, seed):
    """These sizes for the first gradient, and for the weights after the last step their own."""
    trained = first_and_last(batch, features, hidden, steps, lr, seed)[1]
    return terms_of_row(batch, features, hidden, seed), abs(trained)
