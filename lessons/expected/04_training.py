"""Expected values of lesson 04: gradient descent by formulas, in NumPy and float64."""

import numpy as np

from ci.lesson.expect import expect

TRUTH = np.array([2.0, -1.0, 3.0, -2.0])


def _data(samples, features, seed, dtype):
    """The samples as the lesson draws them, rounded to its dtype, with a column of ones."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (samples, features))
    y = x @ TRUTH[:features] + 0.5 + 0.1 * rng.standard_normal(samples)
    x, y = (np.float64(values.astype(dtype)) for values in (x, y))
    return np.column_stack([x, np.ones(samples)]), y


def _gradient(x, y, w):
    """dL/dw_j = 2/n sum of (prediction - y) x_j; the column of ones belongs to the bias."""
    return 2 / len(y) * x.T @ (x @ w - y)


def _train(x, y, w, batch, epochs, lr, momentum=0.0, velocity=0.0):
    """The losses of all steps, the weights after them, and the velocity."""
    losses = []
    for _ in range(epochs):
        for start in range(0, len(y), batch):
            part = slice(start, start + batch)
            losses.append(np.mean((x[part] @ w - y[part]) ** 2))
            velocity = momentum * velocity + _gradient(x[part], y[part], w)
            w = w - lr * velocity
    return np.array(losses), w, velocity


def first_samples(samples, features, seed, dtype):
    """x is uniform between -1 and 1; y = 2 x_1 - x_2 + 3 x_3 - 2 x_4 + 0.5, and noise."""
    x, y = _data(samples, features, seed, dtype)
    return x[:3, :features], y[:3]


def first_loss(samples, features, seed, dtype):
    """Every prediction is 0, so the loss is the mean of y_i^2."""
    _, y = _data(samples, features, seed, dtype)
    return np.float64(np.mean(y**2))


def first_gradient(samples, features, seed, dtype):
    """With the predictions 0: -2/n sum of y_i x_ij, and -2/n sum of y_i for the bias."""
    x, y = _data(samples, features, seed, dtype)
    return np.array([-2 * np.mean(y * column) for column in x.T])


def one_step(samples, features, seed, dtype, lr):
    """From 0, a step leads to -lr times the gradient: 2 lr/n sum of y_i x_ij."""
    x, y = _data(samples, features, seed, dtype)
    return np.array([2 * lr * np.mean(y * column) for column in x.T])


def batch_sizes(samples, batch):
    """As many full batches as fit, and what remains of the samples."""
    remaining = [samples % batch] if samples % batch else []
    return [batch] * (samples // batch) + remaining


def losses_by_hand(samples, features, batch, epochs, lr, seed, dtype):
    """Each step: L = mean of (x w - y)^2 over the batch, then w - lr 2/n x^T (x w - y)."""
    x, y = _data(samples, features, seed, dtype)
    return _train(x, y, np.zeros(features + 1), batch, epochs, lr)[0]


def weights_by_hand(samples, features, batch, epochs, lr, seed, dtype):
    """After the last step of w - lr 2/n x^T (x w - y); the last element is the bias."""
    x, y = _data(samples, features, seed, dtype)
    return _train(x, y, np.zeros(features + 1), batch, epochs, lr)[1]


def parameters(features):
    """One weight per feature, and a bias."""
    return {"w": (features,), "b": (1,)}


@expect(device="cpu")
def each_sample_once(samples):
    """The old order is one of n! possible ones; sorted, each of them is 0, 1, ..., n - 1."""
    return False, np.arange(samples)


def losses_by_module(samples, features, batch, epochs, lr, seed, dtype):
    """The same formulas as for the loop by hand, as the batches are the same."""
    return losses_by_hand(samples, features, batch, epochs, lr, seed, dtype)


def weights_compared(samples, features, batch, epochs, lr, seed, dtype):
    """Twice the weights after the last step of w - lr 2/n x^T (x w - y)."""
    weights = weights_by_hand(samples, features, batch, epochs, lr, seed, dtype)
    return np.array([weights, weights])


@expect(constant="the ones and the probability are written into the lesson")
def dropout_in_training():
    """A one becomes 0 or 1 / (1 - 0.2); the probability that no 0 occurs is 0.8^1000."""
    return np.array([0.0, 1.25])


@expect(constant="the ones are written into the lesson")
def dropout_in_evaluation():
    """Each of the thousand ones stays one."""
    return np.array([1.0]), np.float64(1000)


def _terms_normalized(samples, features, seed, dtype):
    """The differences and the mean of x may cancel: the sizes of their terms."""
    x = _data(samples, features, seed, dtype)[0][:, :features]
    size = np.abs(x).mean(axis=0) + np.abs(x[0])
    deviation = np.sqrt(x.var(axis=0) + 1e-5)
    return size / deviation, 0.1 * size, np.ones(features), size


@expect(terms=_terms_normalized)
def normalized(samples, features, seed, dtype):
    """(x - m) / sqrt(v + 1e-5) by the batch's mean and variance; by 0.1 m and 0.9 + 0.1 v'
    afterwards, where v' divides by n - 1."""
    x = _data(samples, features, seed, dtype)[0][:, :features]
    mean, variance = x.mean(axis=0), x.var(axis=0)
    running_mean, running_variance = 0.1 * mean, 0.9 + 0.1 * x.var(axis=0, ddof=1)
    in_training = (x[0] - mean) / np.sqrt(variance + 1e-5)
    in_evaluation = (x[0] - running_mean) / np.sqrt(running_variance + 1e-5)
    return in_training, running_mean, running_variance, in_evaluation


def _terms_state(samples, features, seed, dtype):
    """The bias adds up means of (prediction - y), whose terms are as large as y."""
    return np.abs(_data(samples, features, seed, dtype)[1]).max()


@expect(terms=_terms_state)
def state(samples, features, batch, epochs, lr, seed, dtype):
    """The trained weights, under the names of the parameters."""
    weights = weights_by_hand(samples, features, batch, epochs, lr, seed, dtype)
    return {"w": weights[:-1], "b": weights[-1:]}


def resumed(samples, features, batch, lr, seed, dtype):
    """Two epochs of v = 0.9 v + gradient, then w - lr v; in the last row v restarts at 0."""
    x, y = _data(samples, features, seed, dtype)
    _, half, velocity = _train(x, y, np.zeros(features + 1), batch, 1, lr, 0.9)
    _, whole, _ = _train(x, y, half, batch, 1, lr, 0.9, velocity)
    _, forgotten, _ = _train(x, y, half, batch, 1, lr, 0.9)
    return np.array([whole, whole, forgotten])


@expect(constant="a is written into the lesson")
def used_twice():
    """z = 9 + 3 = 12, y = z^2 = 144, and dy/da = 2z (2a + 1) = 24 * 7 = 168."""
    return 144.0, 168.0


@expect(rel=1e-12, why="sums of 64 terms in float64, added in another order")
def own_gradient(samples, features, seed, dtype):
    """The mean of y_i^2; -2/n sum of y_i x_ij, and -2/n sum of y_i; all as floats of Python."""
    gradient = first_gradient(samples, features, seed, dtype).tolist()
    return float(first_loss(samples, features, seed, dtype)), gradient


def with_momentum(samples, features, lr, seed, dtype):
    """Three times v = 0.9 v + 2/n x^T (x w - y), w - lr v, without a bias."""
    x, y = _data(samples, features, seed, dtype)
    return _train(x[:, :features], y, np.zeros(features), samples, 3, lr, 0.9)[1]


def mean_loss(samples, features, seed, dtype):
    """The mean of (sum of x_ij over j - y_i)^2 over all i; eval() ends the training mode."""
    x, y = _data(samples, features, seed, dtype)
    return np.float64(np.mean((x[:, :features].sum(axis=1) - y) ** 2)), False


def exponential(samples):
    """exp(a^2) and its derivative 2a exp(a^2), at a = 1/n."""
    a = 1 / samples
    return float(np.exp(a * a)), 2 * a * float(np.exp(a * a))
