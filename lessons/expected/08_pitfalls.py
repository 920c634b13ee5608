"""Expected values of lesson 08: what each mistake finds, and what one device finds, in NumPy."""

import numpy as np

from ci.lesson.expect import expect


def _draw(batch, features, seed):
    """The lesson's draws, in its order: weights, samples, targets."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 1, features)
    x = rng.uniform(0.5, 1, (batch, features)) / features**0.5
    return w, x, 2 * x.sum(axis=1) + np.linspace(0, 1, batch)


def _gradient(w, x, y, n):
    """The part of these samples in the gradient of a mean squared error over n samples."""
    return 2 / n * x.T @ (x @ w - y)


def _slices(count, parts):
    """The first count % parts slices hold one sample more than the others."""
    sizes = [count // parts + (part < count % parts) for part in range(parts)]
    ends = np.cumsum([0, *sizes])
    return [slice(ends[part], ends[part + 1]) for part in range(parts)]


def _local_gradients(world_size, batch, features, seed):
    """Each rank's gradient of its own mean; zero where it has no samples."""
    w, x, y = _draw(batch, features, seed)
    slices = _slices(batch, world_size)
    return np.stack([_gradient(w, x[r], y[r], max(1, r.stop - r.start)) for r in slices])


def _descend(w, x, y, n, steps, lr):
    """`steps` times w <- w - lr grad L, of a squared error over n samples, from the samples x."""
    for _ in range(steps):
        w = w - lr * _gradient(w, x, y, n)
    return w


def _terms_of_descent(w, x, y, n, steps, lr):
    """The largest sizes of the terms of w - lr grad L in all steps, for each weight."""
    sizes = []
    for _ in range(steps):
        sizes.append(abs(w) + lr * 2 / n * abs(x).T @ (abs(x) @ abs(w) + abs(y)))
        w = w - lr * _gradient(w, x, y, n)
    return np.max(sizes, axis=0)


def _dealt(world_size, batch):
    """Rank r's cards are r, r + W, r + 2W, ..., ceil(n / W) of them, modulo n."""
    size = -(-batch // world_size)
    return (np.arange(world_size)[:, None] + world_size * np.arange(size)) % batch


def gradient(batch, features, seed):
    """2/n X^T (X w - y)."""
    return _gradient(*_draw(batch, features, seed), batch)


def _shards(world_size, batch, features, seed):
    """The weights; and for each rank its samples, its targets, and n / W."""
    w, x, y = _draw(batch, features, seed)
    slices = _slices(batch, world_size)
    return w, [(x[rows], y[rows], batch / world_size) for rows in slices]


def _terms_apart(world_size, batch, features, steps, lr, seed):
    w, shards = _shards(world_size, batch, features, seed)
    return np.stack([_terms_of_descent(w, *shard, steps, lr) for shard in shards])


def _drifted(world_size, batch, features, steps, lr, seed):
    """`steps` times w_r <- w_r - lr n_r W / n grad L_r: each rank has only its own samples."""
    w, shards = _shards(world_size, batch, features, seed)
    return np.stack([_descend(w, *shard, steps, lr) for shard in shards])


def _terms_together(batch, features, steps, lr, seed):
    return _terms_of_descent(*_draw(batch, features, seed), batch, steps, lr)


def _together(world_size, batch, features, steps, lr, seed):
    """`steps` times w <- w - lr grad L over all samples, on one device; the same on each rank."""
    found = _descend(*_draw(batch, features, seed), batch, steps, lr)
    return np.tile(found, (world_size, 1))


def _terms_of_training(world_size, batch, features, steps, lr, seed):
    apart = _terms_apart(world_size, batch, features, steps, lr, seed)
    return apart, _terms_together(batch, features, steps, lr, seed)


@expect(device="cpu", terms=_terms_of_training)
def never_reduced(world_size, batch, features, steps, lr, seed):
    """w_r <- w_r - lr n_r W / n grad L_r on each rank alone; w <- w - lr grad L, all samples."""
    settings = world_size, batch, features, steps, lr, seed
    return _drifted(*settings), _together(*settings)


def _added(world_size, batch, features, seed):
    """sum_r grad L_r, which is W times their mean; the same on each rank."""
    local = _local_gradients(world_size, batch, features, seed)
    return np.tile(local.sum(axis=0), (world_size, 1))


def _averaged(world_size, batch, features, seed):
    """sum_r (n_r / n) grad L_r = grad L, on each rank."""
    return np.tile(gradient(batch, features, seed), (world_size, 1))


@expect(device="cpu")
def summed(world_size, batch, features, seed):
    """sum_r grad L_r, which is W times their mean; and sum_r (n_r / n) grad L_r = grad L."""
    settings = world_size, batch, features, seed
    return _added(*settings), _averaged(*settings)


def _evaluated_apart(world_size, batch, features, seed):
    """1/W sum_r L_r on each rank, where L_r = 1/n_r |X_r w - y_r|^2, or 0/0 without samples."""
    w, x, y = _draw(batch, features, seed)
    squares = (x @ w - y) ** 2
    parts = [squares[rows] for rows in _slices(batch, world_size)]
    own = np.array([part.mean() if len(part) else np.nan for part in parts])
    return np.full(world_size, own.sum() / world_size)


def _evaluated(world_size, batch, features, seed):
    """1/n |X w - y|^2 over all samples, on each rank."""
    w, x, y = _draw(batch, features, seed)
    return np.full(world_size, np.mean((x @ w - y) ** 2))


@expect(device="cpu")
def mean_of_means(world_size, batch, features, seed):
    """1/W sum_r L_r with L_r = 1/n_r |X_r w - y_r|^2 (0/0 without samples); 1/n |X w - y|^2."""
    settings = world_size, batch, features, seed
    return _evaluated_apart(*settings), _evaluated(*settings)


@expect(device="cpu")
def same_samples(world_size, batch, features, seed):
    """Samples 0, 1, ..., ceil(n / W) - 1, and the gradient of their mean loss; on each rank."""
    w, x, y = _draw(batch, features, seed)
    size = -(-batch // world_size)
    found = _gradient(w, x[:size], y[:size], size)
    return np.tile(np.arange(size), (world_size, 1)), np.tile(found, (world_size, 1))


@expect(device="cpu", zero=True)  # sample 0 may be the only one
def dealt(world_size, batch):
    """Rank r is dealt r, r + W, r + 2W, ..., ceil(n / W) samples, modulo n."""
    return _dealt(world_size, batch)


@expect(device="cpu")
def times_dealt(world_size, batch):
    """Once, and the first W ceil(n / W) - n samples once more, from the beginning after each n."""
    extra = -batch % world_size
    return 1 + extra // batch + (np.arange(batch) < extra % batch)


@expect(device="cpu")
def weighted_gradient(world_size, batch, features, seed):
    """2/m sum over the m = W ceil(n / W) samples that were dealt; and k times 1/k is 1: grad L."""
    w, x, y = _draw(batch, features, seed)
    rows = _dealt(world_size, batch).flatten()
    padded, right = _gradient(w, x[rows], y[rows], len(rows)), _gradient(w, x, y, batch)
    return np.tile(padded, (world_size, 1)), np.tile(right, (world_size, 1))


def _drawn(world_size, features, seed):
    """Each rank's own draw."""
    rngs = [np.random.default_rng([seed, rank]) for rank in range(world_size)]
    return np.stack([rng.uniform(0.5, 1, features) for rng in rngs])


def _terms_begun(world_size, batch, features, steps, lr, seed):
    _, x, y = _draw(batch, features, seed)
    weights = _drawn(world_size, features, seed)
    largest = max(_terms_of_descent(w, x, y, batch, steps, lr).max() for w in weights)
    return largest + abs(_begun_apart(world_size, batch, features, steps, lr, seed)).max()


def _begun_apart(world_size, batch, features, steps, lr, seed):
    """`steps` times w_r <- w_r - lr sum_s (n_s / n) grad L_s(w_s)."""
    _, x, y = _draw(batch, features, seed)
    weights = _drawn(world_size, features, seed)
    slices = _slices(batch, world_size)
    for _ in range(steps):
        parts = [_gradient(weights[i], x[r], y[r], batch) for i, r in enumerate(slices)]
        weights = weights - lr * sum(parts)
    return weights


def _begun_together(world_size, batch, features, steps, lr, seed):
    """`steps` times w <- w - lr grad L on one device, from the draw of rank 0; on each rank."""
    _, x, y = _draw(batch, features, seed)
    w = _drawn(world_size, features, seed)[0]
    return np.tile(_descend(w, x, y, batch, steps, lr), (world_size, 1))


@expect(device="cpu", terms=_terms_begun)
def initial_weights(world_size, batch, features, steps, lr, seed):
    """The draws; w_r <- w_r - lr sum_s (n_s / n) grad L_s(w_s); and w <- w - lr grad L."""
    settings = world_size, batch, features, steps, lr, seed
    drawn = _drawn(world_size, features, seed)
    return drawn, _begun_apart(*settings), _begun_together(*settings)


def _readings(world_size, features, seed):
    """Readings that climb by 3, with whole numbers below 3 added."""
    count = 5 * world_size + 1
    noise = np.random.default_rng(seed).integers(0, 3, (count, features))
    return 3 * np.arange(count)[:, None] + noise


def _moments(parts):
    """sum x / n, and sum (x - mean)^2 / (n - 1), of each part."""
    means = [part.mean(axis=0) for part in parts]
    return {"mean": np.stack(means), "var": np.stack([part.var(axis=0, ddof=1) for part in parts])}


def _statistics_apart(world_size, features, seed):
    """sum x / n_r, and sum (x - mean_r)^2 / (n_r - 1), over the readings of each rank."""
    table = _readings(world_size, features, seed)
    return _moments([table[rows] for rows in _slices(len(table), world_size)])


def _statistics(world_size, features, seed):
    """sum x / n, and sum (x - mean)^2 / (n - 1), over all readings; the same on each rank."""
    return _moments([_readings(world_size, features, seed)] * world_size)


@expect(device="cpu")
def batch_statistics(world_size, features, seed):
    """sum x / n_r and sum (x - mean_r)^2 / (n_r - 1) of each rank; the same over all readings."""
    settings = world_size, features, seed
    return _statistics_apart(*settings), _statistics(*settings)


@expect(device="cpu")
def shuffled(world_size, steps):
    """840 / W sample numbers in each epoch."""
    return np.zeros((steps, -(-840 // world_size)), int)


def orders(world_size, steps, shuffled):
    """Without set_epoch one order of 840 / W samples; with it an order for each epoch."""
    return (1, -(-840 // world_size)), (steps, len(np.unique(shuffled)))


@expect(device="cpu")
def scheduled(batch, features, microbatches, seed):
    """1/m sum_k grad L_k, with L_k the mean over microbatch k."""
    w, x, y = _draw(batch, features, seed)
    slices = _slices(batch, min(microbatches, batch))
    return np.mean([_gradient(w, x[k], y[k], len(x[k])) for k in slices], axis=0)


def accumulated(batch, features, seed):
    """sum_k 1/n sum over microbatch k = grad L."""
    return gradient(batch, features, seed)


# A gradient that is exactly doubled, and Adam with a learning rate of 0.1 over at most five steps.


def _adam(batch, features, steps, seed, factor):
    """The losses of m <- 0.9 m + 0.1 g, v <- 0.999 v + 0.001 g^2, both made unbiased, from g."""
    w, x, y = _draw(batch, features, seed)
    m = v = np.zeros(features)
    losses = []
    for t in range(1, min(steps, 5) + 1):
        losses.append(np.mean((x @ w - y) ** 2))
        g = factor * _gradient(w, x, y, batch)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return losses


@expect(device="cpu")
def doubled(batch, features, seed):
    """Two passes add up to 2 grad L, one gives grad L."""
    right = gradient(batch, features, seed)
    return np.stack([2 * right, right])


def _terms_of_adam(batch, features, steps, seed):
    """Of r^2, where the terms of r = x w - y are |x| |w| + |y|, and |w| grows by 0.1 per step."""
    w, x, y = _draw(batch, features, seed)
    sizes = abs(x) @ (abs(w) + 0.5) + abs(y)
    largest = max(_adam(batch, features, steps, seed, 1))
    return 2 * largest**0.5 * sizes.max() + sizes.max() ** 2 * 1e-3


@expect(device="cpu", terms=_terms_of_adam)
def same_losses(batch, features, steps, seed):
    """Adam with 2 grad L and with grad L: m and sqrt(v) are doubled, so the steps are equal."""
    return np.array([_adam(batch, features, steps, seed, factor) for factor in (2, 1)])


# Exercises.


def combined(world_size, seed):
    """Mean and variance of all readings, from the readings themselves."""
    count = 5 * world_size + 1
    readings = 3 * np.arange(count) + np.random.default_rng(seed).integers(0, 3, count)
    return float(readings.mean()), float(readings.var(ddof=1))


def batches(batch, world_size):
    """The sum of the counts; all ranks take part as often as the rank with most batches."""
    counts = [2 + (batch + rank) % 3 for rank in range(world_size)]
    return [(float(sum(counts)), max(counts))] * world_size


def one_rank(world_size):
    """Only a run with one rank has to say so."""
    text = "There is one rank only: no communication is tested in this run."
    return text if world_size == 1 else ""
