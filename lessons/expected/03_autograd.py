"""What lesson 03 must show: gradients by closed form, the control flow by a loop of its own."""

import numpy as np

from ci.lesson.expect import expect

QUADRATIC = (
    "rounding of a central difference, 4 eps max|f| / h, is at most 7e-10 of the largest slope "
    "(at size 64); a quadratic has no other error"
)


def _x(size):
    return np.arange(size, dtype=np.float64)


def _v(size):
    return 10.0 ** (np.arange(size) % 4)


def _draw(seed, dtype):
    """The lesson's draw, rounded to its dtype."""
    generator = np.random.default_rng(seed)
    number = generator.standard_normal()
    while abs(number) < 1e-3:
        number = generator.standard_normal()
    return np.float64(np.dtype(dtype).type(number))


def _slope(a, limit):
    r"""$2^k$, or $100 \cdot 2^k$ for a negative $a$; $k$ is how often it doubles to get to the
    limit.
    """
    k = 1
    while abs(a) * 2.0**k < limit:
        k += 1
    return 2.0**k * (1 if a > 0 else 100)


def _slopes(seed, dtype, limit):
    a = _draw(seed, dtype)
    limit = np.float64(np.dtype(dtype).type(limit))  # a tensor compares numbers of its own dtype
    return np.array([_slope(a, limit), _slope(-a, limit)])


def no_gradient_yet(size):
    r"""$x = 0, 1, \dots, n - 1$ with $n$ = `size`; before a backward pass, it has no gradient."""
    return _x(size), True


def y(size):
    r"""$y = 2 \sum_{i<n} i^2 = \frac{(n - 1)\, n\, (2n - 1)}{3}$ with $n$ = `size`."""
    return np.float64((size - 1) * size * (2 * size - 1) / 3)


def gradient(size):
    r"""$y = 2 \sum_i x_i^2$, so $\frac{\partial y}{\partial x_i} = 4 x_i$."""
    return 4 * _x(size)


def gradient_is_4x(size):
    """$4 x_i$ is exact in floating point, so each element is equal."""
    return np.ones(size, dtype=bool)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_gradient(size):
    """The central difference of a quadratic is its derivative: $4 x_i$."""
    return 4 * _x(size)


def accumulated(size):
    """Two backward passes without clearing: $4 x_i + 4 x_i$."""
    return 8 * _x(size)


def after_clearing(size):
    """One backward pass into a cleared gradient: $4 x_i$ again."""
    return 4 * _x(size)


def sum_gradient(size):
    r"""$\frac{\partial}{\partial x_i} \sum_j x_j^2 = 2 x_i$."""
    return 2 * _x(size)


@expect(rel=0)
def vector_jacobian(size):
    r"""$J$ is diagonal with $2 x_i$, so $(v^\top J)_i = 2 x_i v_i$ with $v = 1, 10, 100, 1000,
    1, \dots$
    """
    return 2 * _x(size) * _v(size)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_vector_jacobian(size):
    r"""The central difference of $\sum_i v_i x_i^2$ is its derivative: $2 x_i v_i$."""
    return 2 * _x(size) * _v(size)


def one_element(size):
    r"""$w$ = `size`, and $\frac{d}{dw} w^2 = 2 w$."""
    return np.array([[2.0 * size]])


def detached(size):
    r"""$u = x^2$ is a constant, so $\frac{\partial}{\partial x_i} u_i x_i = u_i = x_i^2$."""
    return _x(size) ** 2, np.ones(size, dtype=bool)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_detached(size):
    """With $u$ held fixed, $u_i x_i$ is linear in $x_i$ with slope $u_i = x_i^2$."""
    return _x(size) ** 2


def not_detached(size):
    r"""$z_i = x_i^3$, so $\frac{\partial z_i}{\partial x_i} = 3 x_i^2$."""
    return 3 * _x(size) ** 2


def shares_memory(size):
    r"""Only $u$ was detached, so $\frac{\partial y_i}{\partial x_i} = 2 x_i$. 7 is written into
    `u[0]` and read from `y[0]`: one memory, although `u` requires no gradient.
    """
    return 2 * _x(size), 7.0, False


def _sum(size):
    return size * (size - 1) / 2


def lost_path(size):
    r"""With the constant $s = 0 + 1 + \dots + (n-1) = \frac{n(n-1)}{2}$,
    $\frac{\partial}{\partial x_i} \sum_j s x_j = s$: half of $2s$.
    """
    return False, np.full(size, _sum(size))


@expect(dtype="float64")
def numeric_lost_path(size):
    """The central difference of $s^2$ is its derivative: $2s$, where autograd found $s$."""
    return np.full(size, 2 * _sum(size))


def kept_path(size):
    r"""$y = s^2$ and $\frac{\partial s}{\partial x_i} = 1$, so $\frac{\partial y}{\partial x_i}
    = 2s$.
    """
    return True, np.full(size, 2 * _sum(size))


def saved_is_changed_by_data(size):
    """The backward pass finds $a_i + 1$ where $a_i = 2 x_i$ was saved: $4 (2 x_i + 1) = 8 x_i +
    4$.
    """
    return 8 * _x(size) + 4


@expect(device="cpu")
def saved_is_changed_by_numpy(size):
    """The first array is the memory of $a$, so the backward pass finds $4 (2 x_i + 1)$; a copy
    leaves $a_i = 2 x_i$: $8 x_i$.
    """
    return 8 * _x(size) + 4, 8 * _x(size)


def control_flow_value(seed, dtype, limit):
    r"""The first draw of $|a| \ge 10^{-3}$ by NumPy's generator, and its negative; $f(a) = a\, 2^k$
    for $a > 0$ and $100\, a\, 2^k$ for $a < 0$, with the $k$ of the oracle's own loop.
    """
    a = _draw(seed, dtype) * np.array([1.0, -1.0])
    return a, a * _slopes(seed, dtype, limit)


@expect(rel=0)
def control_flow(seed, dtype, limit):
    r"""On the path taken $f$ is linear: its slope is $2^k$, or $100 \cdot 2^k$ for the negative
    one.
    """
    return _slopes(seed, dtype, limit)


@expect(constant="a product that is rounded once on both sides is equal for every draw")
def control_flow_product():
    """d and a f'(a) round the same exact product once: equal bits."""
    return np.array([True, True])


def quotient(seed, dtype, limit):
    """d / a is the slope, to within the rounding of a division, which moves it by at most the last
    bit.
    """
    return _slopes(seed, dtype, limit), True


@expect(dtype="float64", rel=0)
def quotient_misses(seed, dtype):
    """The share of 1000 draws with 100 a / a != 100, each rounded twice, in IEEE arithmetic."""
    many = np.random.default_rng(seed).standard_normal(1000).astype(dtype)
    return np.mean(many * np.dtype(dtype).type(100) / many != 100)


def logistic_slope(size):
    r"""$s = \frac{1}{1 + e^{-x}}$ has the derivative $s (1 - s)$, here at $n$ points from $-2$
    to $2$.
    """
    s = 1 / (1 + np.exp(-np.linspace(-2, 2, size)))
    return s * (1 - s)


def mean_gradient(size):
    r"""$\frac{\partial}{\partial x_i} \frac{1}{n} \sum_j x_j^3 = \frac{3 x_i^2}{n}$."""
    return 3 * _x(size) ** 2 / size


def two_paths(size):
    """$z_i = x_i x_i c_i$ with the constant $c_i = x_i$: the value is $x_i^3$, the gradient $2
    x_i c_i$.
    """
    return _x(size) ** 3, 2 * _x(size) ** 2
