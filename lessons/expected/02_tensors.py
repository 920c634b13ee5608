"""What lesson 02 must show, derived without PyTorch."""

import numpy as np

from ci.lesson.expect import expect


@expect(rel=0, constant="the temperatures are written into the lesson")
def temperatures():
    """A number; three days; two cities with three days each, the first with the same days: 2 axes,
    shape (2, 3); city 1, day 2 is the last number, 20."""
    days = np.array([19.0, 21.5, 23.0])
    cities = np.array([days, [14.0, 18.5, 20.0]])
    return np.float64(21.5), days, cities, 2, (2, 3), np.float64(20.0)


@expect(constant="the image is 6 by 9 pixels, with 2 clips of 4 frames")
def axes():
    """(), (day), (city, day), (C, H, W), (N, C, H, W), (N, T, C, H, W), lengths as written."""
    return (), (3,), (2, 3), (3, 6, 9), (2, 3, 6, 9), (2, 4, 3, 6, 9)


def _row_of_pixels(left, inside, outside):
    """One row of a channel, with the sun in 3 columns from the left one on."""
    return np.where([left <= j <= left + 2 for j in range(9)], inside, outside)


@expect(rel=0, constant="the picture is fixed")
def red():
    """The sun is in rows and columns 1 to 3, all red; the sky has no red."""
    row = _row_of_pixels(1, 1.0, 0.0)
    return np.array([row if 1 <= i <= 3 else 0 * row for i in range(6)])


@expect(constant="the picture is fixed")
def pixels():
    """Mirrored, columns 1 to 3 of 9 become 5 to 7, with green 0.7; by frame 3 they have become 4 to
    6, mirrored 2 to 4, and blue is 0.8 around them."""
    return _row_of_pixels(5, 0.7, 0.0), _row_of_pixels(2, 0.0, 0.8)


def arange(size):
    """0, 1, ..., size - 1, as integers of 64 bits and as floating-point numbers of 32 bits."""
    return np.array(list(range(size))), np.array([float(i) for i in range(size)])


@expect(constant="the list is written into the lesson")
def nested_shape():
    """The outer list has 1 element, which has 3 lists of 3 numbers."""
    return 1, 3, 3


@expect(rel=0)
def zeros_and_ones(rows, cols):
    """rows * cols zeros, rows * cols ones."""
    return np.zeros((rows, cols)), np.full((rows, cols), 1.0)


def same_seed(samples):
    """One axis with all the draws; |mean| > 5/sqrt(n) for 6 seeds in 10 million; the same seed
    gives the same numbers again, and later draws are others."""
    return (samples,), 5 / samples**0.5, True, True, False


def _x(size):
    return np.arange(1, size + 1)


def arithmetic(size):
    """With x = 1, 2, ..., n and y = 2: x + 2, x - 2, 2x, x/2, x squared; int64, but x/2 float32."""
    x = _x(size)
    return x + 2, x - 2, 2 * x, x / 2, x * x


@expect(elementwise=True)
def exponential(size):
    """e to the power of 1, 2, ..., n; float32 ends at 2^128 = e^88.72, between e^88 and e^89."""
    return np.exp(_x(size).astype(float)), np.array([88, 89]) > 128 * np.log(2)


def _grid(rows, cols):
    return np.array([[i * cols + j for j in range(cols)] for i in range(rows)])


def sums(size, rows, cols):
    """1 + 2 + ... + n = n(n+1)/2. Row i of the grid holds i*cols + j; summed over i: cols *
    rows(rows-1)/2 + rows * j."""
    columns = cols * (rows * (rows - 1) // 2) + rows * np.arange(cols)
    return np.int64(size * (size + 1) // 2), columns


def mean(size):
    """n(n+1)/2 divided by n is (n+1)/2."""
    return np.float64((size + 1) / 2)


def concatenated(rows, cols):
    """Row r is row r of the upper matrix, from r = rows on row r - rows of the lower one; row i is
    row i of the upper matrix, then row i of the lower one."""
    upper = _grid(rows, cols)
    down = [upper[r] if r < rows else upper[r - rows] + 100 for r in range(2 * rows)]
    return np.array(down), np.array([[*line, *(line + 100)] for line in upper])


def stacked(rows, cols):
    """A new first axis, as long as there are matrices: 2."""
    return 2, rows, cols


def broadcast(rows, cols):
    """i + j in row i and column j."""
    return np.array([[i + j for j in range(cols)] for i in range(rows)])


def broadcast_shape(rows, cols):
    """(rows, 1) and (1, cols), whose 1 is put there: each 1 is stretched to the other length."""
    return rows, cols


def empty_and_scalar(rows, cols):
    """(0, cols) and (1, cols) give (0, cols); a scalar has no axis, so (rows, 1) stays."""
    return (0, cols), (rows, 1)


@expect(rel=0)
def per_row(rows, cols):
    """0 + i everywhere in row i."""
    return np.array([[float(i)] * (rows + cols) for i in range(rows)])


@expect(rel=0)
def square_is_silent(rows):
    """At the right, entry j meets column j: 0 + j everywhere in column j."""
    return np.array([[float(j) for j in range(rows)] for _ in range(rows)])


def in_place_value(size):
    """x + 2 = 3, 4, ..., n + 2."""
    return np.arange(3, size + 3)


@expect(rel=0)
def view_writes(rows, cols):
    """The last element of the view is the last one of m; another object, but the same memory."""
    m = np.zeros((rows, cols))
    m[rows - 1, cols - 1] = 7
    return m, False, True


@expect(constant="the address of a result does not depend on its size")
def address_kept():
    """An in-place operation writes into the memory of a; a + b has memory of its own."""
    return {
        "a += b": True,
        "a[:] = a + b": True,
        "torch.add(a, b, out=a)": True,
        "a = a + b": False,
    }


def allocated(size):
    """A temporary a + b has 1024 * size elements of 4 bytes; in place, nothing is allocated."""
    temporary = 4 * 1024 * size
    return {
        "a += b": 0,
        "a[:] = a + b": temporary,
        "torch.add(a, b, out=a)": 0,
        "a = a + b": temporary,
    }


def truncated(size):
    """1.9 without its fraction is 1."""
    return np.array([int(1.9)] * size)


@expect(rel=0, device="cpu")
def shares(size):
    """0, 1, 2, ..., with -1 instead of the 0 in three of them, because they share memory."""
    written = np.array([-1.0, *range(1, size)])
    return written, written, written, np.arange(float(size))


@expect(constant="the two defaults")
def from_numpy_dtype():
    """NumPy makes 64-bit numbers and from_numpy keeps them; PyTorch makes 32-bit ones."""
    return "torch.float64", "torch.float32"


def round_trip(size):
    """The round trip changes nothing: 1, 2, ..., n."""
    return _x(size)


def centred(rows, cols):
    """Row i holds i*cols + j, with the mean i*cols + (cols-1)/2: what is left is j - (cols-1)/2."""
    return np.array([[j - (cols - 1) / 2 for j in range(cols)] for _ in range(rows)])


@expect(rel=0)
def in_place(size):
    """2 * 0 + 1, 2 * 1 + 1, ...: the odd numbers, in the object that was there before."""
    return np.arange(1.0, 2 * size, 2), True
