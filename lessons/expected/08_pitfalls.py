"""Expected values of lesson 08: what each mistake finds, and what one device finds, in NumPy."""

import numpy as np

from ci.lesson.expect import expect


def _draw(batch, features, seed):
    """The lesson's draws, in its order: weights, rows, targets."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 1, features)
    x = rng.uniform(0.5, 1, (batch, features)) / features**0.5
    return w, x, 2 * x.sum(axis=1) + np.linspace(0, 1, batch)


def _gradient(w, x, y, n):
    """The rows' part of the gradient of a mean squared error over n rows."""
    return 2 / n * x.T @ (x @ w - y)


def _slices(count, parts):
    """The first count % parts slices hold one row more than the others."""
    sizes = [count // parts + (part < count % parts) for part in range(parts)]
    ends = np.cumsum([0, *sizes])
    return [slice(ends[part], ends[part + 1]) for part in range(parts)]


def _local_gradients(world_size, batch, features, seed):
    """Each rank's gradient of its own mean; zero where it has no rows."""
    w, x, y = _draw(batch, features, seed)
    slices = _slices(batch, world_size)
    return np.stack([_gradient(w, x[r], y[r], max(1, r.stop - r.start)) for r in slices])


def _descend(w, x, y, steps, lr):
    """The losses of `steps` times w <- w - lr grad L, and the last weights; 0/0 counts as 0."""
    losses = []
    for _ in range(steps):
        losses.append(np.sum((x @ w - y) ** 2) / max(1, len(x)))
        w = w - lr * _gradient(w, x, y, max(1, len(x)))
    return losses, w


def _terms_of_step(w, x, y, n, lr):
    """The sizes of the terms of w - lr grad L, as far as the rows x have a part in it."""
    return abs(w) + lr * 2 / n * abs(x).T @ (abs(x) @ abs(w) + abs(y))


def _terms_of_descent(w, x, y, steps, lr):
    """The largest terms of all steps, for each weight."""
    sizes, n = [], max(1, len(x))
    for _ in range(steps):
        sizes.append(_terms_of_step(w, x, y, n, lr))
        w = w - lr * _gradient(w, x, y, n)
    return np.max(sizes, axis=0)


def _dealt(world_size, batch):
    """Rank r's cards are r, r + W, r + 2W, ..., ceil(n / W) of them, modulo n."""
    size = -(-batch // world_size)
    return (np.arange(world_size)[:, None] + world_size * np.arange(size)) % batch


def gradient(batch, features, seed):
    """2/n X^T (X w - y)."""
    return _gradient(*_draw(batch, features, seed), batch)


def shard_gradients(world_size, batch, features, seed):
    """2/n_r X_r^T (X_r w - y_r) over the n_r rows of rank r; 0 where there are none."""
    return list(_local_gradients(world_size, batch, features, seed))


def _apart(world_size, batch, features, steps, lr, seed):
    """Descent of each rank on its own shard."""
    w, x, y = _draw(batch, features, seed)
    return [_descend(w, x[rows], y[rows], steps, lr) for rows in _slices(batch, world_size)]


def _terms_apart(world_size, batch, features, steps, lr, seed):
    w, x, y = _draw(batch, features, seed)
    slices = _slices(batch, world_size)
    return np.stack([_terms_of_descent(w, x[rows], y[rows], steps, lr) for rows in slices])


def _terms_of_losses(world_size, batch, features, steps, lr, seed):
    """Of r^2, where the terms of r = x w - y are |x| |w| + |y|, so at most 2 |r| times as much."""
    _, x, y = _draw(batch, features, seed)
    sizes = _terms_apart(world_size, batch, features, steps, lr, seed).max(axis=0)
    return (
        2
        * own_losses(world_size, batch, features, steps, lr, seed) ** 0.5
        * (abs(x) @ sizes + abs(y)).max()
    )


@expect(device="cpu", terms=_terms_of_losses)
def own_losses(world_size, batch, features, steps, lr, seed):
    """1/n_r |X_r w - y_r|^2 at the first step and at the last, each rank descending alone."""
    found = _apart(world_size, batch, features, steps, lr, seed)
    return np.array([[losses[0], losses[-1]] for losses, _ in found])


@expect(device="cpu", terms=_terms_apart)
def drifted(world_size, batch, features, steps, lr, seed):
    """`steps` times w_r <- w_r - lr grad L_r: each rank descends on its own rows alone."""
    return np.stack([w for _, w in _apart(world_size, batch, features, steps, lr, seed)])


def _terms_together(batch, features, steps, lr, seed):
    return _terms_of_descent(*_draw(batch, features, seed), steps, lr)


@expect(device="cpu", terms=_terms_together)
def together(world_size, batch, features, steps, lr, seed):
    """`steps` times w <- w - lr grad L over all rows, on one device; the same on each rank."""
    return np.tile(_descend(*_draw(batch, features, seed), steps, lr)[1], (world_size, 1))


def _terms_of_paths(world_size, batch, features, steps, lr, seed):
    apart = _terms_apart(world_size, batch, features, steps, lr, seed)
    return [apart, _terms_together(batch, features, steps, lr, seed)]


@expect(device="cpu", terms=_terms_of_paths)
def paths(world_size, batch, features, steps, lr, seed):
    """The first weight after 1, 2, ..., `steps` steps: of each rank alone, and of one device."""
    data, taken = (batch, features), range(1, steps + 1)
    apart = [drifted(world_size, *data, n, lr, seed)[:, 0] for n in taken]
    whole = [together(world_size, *data, n, lr, seed)[0, 0] for n in taken]
    return np.stack(apart, axis=1), np.array(whole)


@expect(device="cpu")
def added(world_size, batch, features, seed):
    """sum_r grad L_r, which is W times their mean; the same on each rank."""
    local = _local_gradients(world_size, batch, features, seed)
    return np.tile(local.sum(axis=0), (world_size, 1))


@expect(device="cpu")
def averaged(world_size, batch, features, seed):
    """sum_r (n_r / n) grad L_r = grad L, on each rank."""
    return np.tile(gradient(batch, features, seed), (world_size, 1))


@expect(device="cpu")
def evaluated_apart(world_size, batch, features, seed):
    """L_r = 1/n_r |X_r w - y_r|^2 on each rank, 0/0 without rows; and 1/W sum_r L_r."""
    w, x, y = _draw(batch, features, seed)
    squares = (x @ w - y) ** 2
    parts = [squares[rows] for rows in _slices(batch, world_size)]
    own = np.array([part.mean() if len(part) else np.nan for part in parts])
    return own, np.full(world_size, own.sum() / world_size)


@expect(device="cpu")
def evaluated(world_size, batch, features, seed):
    """1/n |X w - y|^2 over all rows, on each rank."""
    w, x, y = _draw(batch, features, seed)
    return np.full(world_size, np.mean((x @ w - y) ** 2))


@expect(device="cpu", zero=True)  # row 0 may be all there is
def same_samples(world_size, batch):
    """Rows 0, 1, ... up to ceil(n / W), on each rank."""
    return np.tile(np.arange(-(-batch // world_size)), (world_size, 1))


@expect(device="cpu")
def same_samples_gradient(world_size, batch, features, seed):
    """The gradient of the mean over the first ceil(n / W) rows, on each rank."""
    w, x, y = _draw(batch, features, seed)
    size = -(-batch // world_size)
    return np.tile(_gradient(w, x[:size], y[:size], size), (world_size, 1))


@expect(device="cpu", zero=True)  # row 0 may be all there is
def dealt(world_size, batch):
    """Rank r is dealt r, r + W, r + 2W, ..., ceil(n / W) rows, modulo n."""
    return _dealt(world_size, batch)


@expect(device="cpu")
def times_dealt(world_size, batch):
    """Once, and the first W ceil(n / W) - n rows (begun again after n of them) once more."""
    extra = -batch % world_size
    return 1 + extra // batch + (np.arange(batch) < extra % batch)


@expect(device="cpu")
def padded_gradient(world_size, batch, features, seed):
    """2/m sum over the m = W ceil(n / W) rows that were dealt, padding included; on each rank."""
    w, x, y = _draw(batch, features, seed)
    rows = _dealt(world_size, batch).flatten()
    return np.tile(_gradient(w, x[rows], y[rows], len(rows)), (world_size, 1))


@expect(device="cpu", zero=True)
def times_dropped(world_size, batch):
    """Once, and the last n mod W rows never; so none at all where there are fewer than W."""
    return (np.arange(batch) < batch - batch % world_size).astype(int)


@expect(device="cpu")
def weighed_gradient(world_size, batch, features, seed):
    """k times 1/k is 1: grad L over all rows, on each rank."""
    return np.tile(gradient(batch, features, seed), (world_size, 1))


def _drawn(world_size, features, seed):
    """Each rank's own draw."""
    rngs = [np.random.default_rng([seed, rank]) for rank in range(world_size)]
    return np.stack([rng.uniform(0.5, 1, features) for rng in rngs])


def _terms_begun(world_size, batch, features, steps, lr, seed):
    _, x, y = _draw(batch, features, seed)
    weights = _drawn(world_size, features, seed)
    largest = max(_terms_of_descent(w, x, y, steps, lr).max() for w in weights)
    return largest + abs(begun_apart(world_size, batch, features, steps, lr, seed)).max()


@expect(device="cpu", terms=_terms_begun)
def begun_apart(world_size, batch, features, steps, lr, seed):
    """The draws; and after `steps` times w_r <- w_r - lr sum_s (n_s / n) grad L_s(w_s)."""
    _, x, y = _draw(batch, features, seed)
    weights = drawn = _drawn(world_size, features, seed)
    slices = _slices(batch, world_size)
    for _ in range(steps):
        parts = [_gradient(weights[i], x[r], y[r], batch) for i, r in enumerate(slices)]
        weights = weights - lr * sum(parts)
    return np.stack([drawn, weights])


@expect(device="cpu")
def wrapped(world_size, features, seed):
    """The draw of rank 0, on each rank."""
    return np.tile(_drawn(world_size, features, seed)[0], (world_size, 1))


@expect(device="cpu", terms=_terms_begun)
def begun_together(world_size, batch, features, steps, lr, seed):
    """`steps` times w <- w - lr grad L on one device, from the draw of rank 0; on each rank."""
    _, x, y = _draw(batch, features, seed)
    w = _drawn(world_size, features, seed)[0]
    return np.tile(_descend(w, x, y, steps, lr)[1], (world_size, 1))


def _readings(world_size, features, seed):
    """Rows that climb by 3, with whole numbers below 3 added."""
    count = 5 * world_size + 1
    noise = np.random.default_rng(seed).integers(0, 3, (count, features))
    return 3 * np.arange(count)[:, None] + noise


def _statistics(parts):
    """sum x / n, and sum (x - mean)^2 / (n - 1), of each part."""
    means = [part.mean(axis=0) for part in parts]
    return {"mean": np.stack(means), "var": np.stack([part.var(axis=0, ddof=1) for part in parts])}


@expect(device="cpu")
def statistics_apart(world_size, features, seed):
    """sum x / n_r, and sum (x - mean_r)^2 / (n_r - 1), over the rows of each rank."""
    table = _readings(world_size, features, seed)
    return _statistics([table[rows] for rows in _slices(len(table), world_size)])


@expect(device="cpu")
def statistics(world_size, features, seed):
    """sum x / n, and sum (x - mean)^2 / (n - 1), over all rows; the same on each rank."""
    return _statistics([_readings(world_size, features, seed)] * world_size)


@expect(device="cpu")
def sync_batch_norm(world_size, features, seed):
    """The statistics of all rows, on each rank."""
    return statistics(world_size, features, seed)


def forgotten(world_size):
    """One order, the same in each epoch; so 840 / W rows for rank 0, for any number of epochs."""
    return 1, -(-840 // world_size)


@expect(device="cpu")
def shuffled(world_size, steps):
    """840 / W row numbers in each epoch."""
    return np.zeros((steps, -(-840 // world_size)), int)


def remembered(steps, shuffled):
    """An order for each epoch, since two equal ones are too unlikely; and the different rows."""
    return steps, len(np.unique(shuffled))


@expect(device="cpu", constant="each row once, for any ranks and any order")
def whole_epoch():
    """1, ..., 8 divide 840, so nothing is padded: 1 for the rarest row and the most frequent."""
    return np.array(1), np.array(1)


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


def factors(world_size, batch, seed):
    """t_r W / t, with t_r words on rank r and t in all, as n_r W / n for rows."""
    lengths = np.random.default_rng(seed).integers(1, 9, batch)
    return [
        float(lengths[rows].sum() * world_size / lengths.sum())
        for rows in _slices(batch, world_size)
    ]


def last_hand(world_size, batch):
    """W - 1, W - 1 + W, ..., ceil(n / W) of them, modulo n."""
    return _dealt(world_size, batch)[-1].tolist()


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
