"""What the small training lesson must show: gradient descent, written by hand."""

import numpy as np

from ci.lesson.expect import expect


def _points(seed, size):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1, 1, size)
    return x, 2 * x - 1 + 0.1 * generator.standard_normal(size)


def _descend(seed, size, steps, lr):
    """The line after all steps, and the loss before the last one."""
    x, y = _points(seed, size)
    slope = offset = loss = 0.0
    for _ in range(steps):
        rest = slope * x + offset - y
        loss = np.mean(rest**2)
        slope, offset = slope - lr * 2 * np.mean(rest * x), offset - lr * 2 * np.mean(rest)
    return np.array([slope, offset]), float(loss)


@expect(dtype="float64")
def first_loss(seed, size):
    """A line of zeros misses by y: the mean of y^2."""
    _, y = _points(seed, size)
    return np.array(np.mean(y**2))


@expect(dtype="float64")
def line(seed, size, steps, lr):
    """Each step subtracts lr times 2 mean(r x) and 2 mean(r), with r = a x + b - y."""
    return _descend(seed, size, steps, lr)[0]


def last_loss(seed, size, steps, lr):
    """The mean of r^2 before the last step."""
    return _descend(seed, size, steps, lr)[1]
