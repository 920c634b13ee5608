"""What lesson 03 must show: gradients by closed form, the control flow by a loop of its own."""

import numpy as np

from ci.check import expect

H = 2.0**-10  # the step of the lesson's central differences

QUADRATIC = (
    "rounding of a central difference, 4 eps max|f| / h, is at most 7e-10 of the largest slope "
    "(at size 64); a quadratic has no other error"
)
CUBIC = (
    "rounding, 4 eps max|f| / h, is at most 4e-10 of the largest slope (at size 64); the error of "
    "the difference itself is part of the expected value"
)
PIECEWISE = "rounding of a central difference with h = a / 2^20 is 4 eps a / h = 9.3e-10"


def _x(size):
    return np.arange(size, dtype=np.float64)


def _v(size):
    return 10.0 ** (np.arange(size) % 4)


def _draw(seed, dtype):
    """The lesson's draw, rounded to its element type."""
    generator = np.random.default_rng(seed)
    number = generator.standard_normal()
    while abs(number) < 1e-3:
        number = generator.standard_normal()
    return np.float64(np.dtype(dtype).type(number))


def _slope(a, limit):
    """2^k, or 100 2^k for a negative a; k is how often it doubles to get to the limit."""
    k = 1
    while abs(a) * 2.0**k < limit:
        k += 1
    return 2.0**k * (1 if a > 0 else 100)


def _slopes(seed, dtype, limit):
    a = _draw(seed, dtype)
    return np.array([_slope(a, limit), _slope(-a, limit)])


def vector(size):
    """x = 0, 1, ..., size - 1."""
    return _x(size)


@expect(constant="no backward pass has run, whatever the parameters")
def no_gradient_yet():
    """There is no gradient before the first backward pass."""
    return True


def y(size):
    """y = 2 sum(i^2) for i < n = size, which is (n - 1) n (2n - 1) / 3."""
    return np.float64((size - 1) * size * (2 * size - 1) / 3)


def gradient(size):
    """y = 2 sum(x_i^2), so dy/dx_i = 4 x_i."""
    return 4 * _x(size)


def gradient_is_4x(size):
    """4 x is exact in floating point, so each element is equal."""
    return np.ones(size, dtype=bool)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_gradient(size):
    """The central difference of a quadratic is its derivative: 4 x_i."""
    return 4 * _x(size)


def accumulated(size):
    """Two backward passes without clearing: 4 x_i + 4 x_i."""
    return 8 * _x(size)


@expect(zero=True)
def cleared(size):
    """zero_() writes zeros over the accumulated gradient."""
    return np.zeros(size)


def after_clearing(size):
    """One backward pass into a cleared gradient: 4 x_i again."""
    return 4 * _x(size)


def sum_gradient(size):
    """d(sum of x_i^2)/dx_i = 2 x_i."""
    return 2 * _x(size)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_sum(size):
    """The central difference of a quadratic is its derivative: 2 x_i."""
    return 2 * _x(size)


@expect(rel=0)
def vector_jacobian(size):
    """J is diagonal with 2 x_i, so (v^T J)_i = 2 x_i v_i with v = 1, 10, 100, 1000, 1, ..."""
    return 2 * _x(size) * _v(size)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_vector_jacobian(size):
    """The central difference of sum(v_i x_i^2) is its derivative: 2 x_i v_i."""
    return 2 * _x(size) * _v(size)


def one_element(size):
    """w = size, and d(w^2)/dw = 2 w."""
    return np.array([[2.0 * size]])


def detached(size):
    """u = x^2 is a constant, so d(u_i x_i)/dx_i = u_i = x_i^2."""
    return _x(size) ** 2


def detached_is_u(size):
    """The gradient is u itself, element by element."""
    return np.ones(size, dtype=bool)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_detached(size):
    """With u held fixed, u_i x_i is linear in x_i with slope u_i = x_i^2."""
    return _x(size) ** 2


def not_detached(size):
    """z_i = x_i^3, so dz_i/dx_i = 3 x_i^2."""
    return 3 * _x(size) ** 2


@expect(dtype="float64", rel=1e-9, why=CUBIC)
def numeric_not_detached(size):
    """((x + h)^3 - (x - h)^3) / 2h = 3 x^2 + h^2, here with h = 2^-10."""
    return 3 * _x(size) ** 2 + H**2


def y_keeps_its_graph(size):
    """y = x^2 was not detached, only u was: dy_i/dx_i = 2 x_i."""
    return 2 * _x(size)


@expect(constant="a fixed number is written")
def shares_memory():
    """7 is written into u[0] and read from y[0]: the two have one memory."""
    return 7.0, True


def saved_is_changed_by_data(size):
    """The backward pass finds a_i + 1 where a_i = 2 x_i was saved: 4 (2 x_i + 1) = 8 x_i + 4."""
    return 8 * _x(size) + 4


def saved_is_left_alone(size):
    """y = sum((2 x_i)^2), so dy/dx_i = 8 x_i."""
    return 8 * _x(size)


@expect(dtype="float64", rel=1e-9, why=QUADRATIC)
def numeric_saved(size):
    """A central difference of 4 x_i^2 has no error of its own: 8 x_i."""
    return 8 * _x(size)


def draw(seed, dtype):
    """The first draw of |a| >= 1e-3 by NumPy's generator with this seed, and its negative."""
    a = _draw(seed, dtype)
    return np.array([a, -a])


def control_flow_value(seed, dtype, limit):
    """f(a) = a 2^k for a > 0 and 100 a 2^k for a < 0, with the k of the oracle's own loop."""
    a = _draw(seed, dtype)
    return np.array([a, -a]) * _slopes(seed, dtype, limit)


@expect(rel=0)
def control_flow(seed, dtype, limit):
    """On the path taken f is linear: its slope is 2^k, or 100 2^k for the negative one."""
    return _slopes(seed, dtype, limit)


@expect(constant="a product that is rounded once on both sides is equal for every draw")
def control_flow_product():
    """d and a f'(a) round the same exact product once: equal bits."""
    return np.array([True, True])


def quotient(seed, dtype, limit):
    """d / a is the slope, to within the rounding of a division."""
    return _slopes(seed, dtype, limit)


@expect(constant="a rounding of the last bit is always close")
def quotient_is_close():
    """One more rounding moves d / a by at most the last bit."""
    return True


@expect(constant="a jump within a / 2^20 of a draw is a matter of one draw in a million")
def numeric_jump(seed, dtype, limit):
    """a - h and a + h, with h = |a| / 2^20, need the same number of doublings."""
    a = _draw(seed, dtype)
    h = abs(a) * 2.0**-20
    return np.array([_slope(s * a - h, limit) == _slope(s * a + h, limit) for s in (1, -1)])


@expect(dtype="float64", rel=1e-9, why=PIECEWISE)
def numeric_control_flow(seed, dtype, limit):
    """The central difference on one straight piece is its slope: 2^k or 100 2^k."""
    return _slopes(seed, dtype, limit)
