"""What lesson 02 must show, derived without PyTorch."""

import numpy as np

from ci.lesson.expect import expect


@expect(rel=0, constant="the temperatures are written into the lesson")
def temperatures():
    """A single number; three days; two cities with three days each, the first those of before."""
    days = np.array([19.0, 21.5, 23.0])
    return np.float64(21.5), days, np.array([days, [14.0, 18.5, 20.0]])


@expect(rel=0, constant="the temperatures are written into the lesson")
def indexing():
    """Two cities by three days: 2 axes, shape (2, 3); city 1, day 2 is the last number, 20."""
    return 2, (2, 3), np.float64(20.0)


@expect(constant="the image is 6 by 9 pixels, with 2 clips of 4 frames")
def axes():
    """(), (day), (city, day), (C, H, W), (N, C, H, W), (N, T, C, H, W), lengths as written."""
    return {
        "scalar": (),
        "vector": (3,),
        "matrix": (2, 3),
        "image": (3, 6, 9),
        "batch": (2, 3, 6, 9),
        "video": (2, 4, 3, 6, 9),
    }


def _sun(left, inside, outside):
    """One channel: the sun in rows 1 to 3 and in 3 columns from the left one on."""
    here = [[1 <= i <= 3 and left <= j <= left + 2 for j in range(9)] for i in range(6)]
    return np.where(here, inside, outside)


@expect(rel=0, constant="the picture is fixed")
def red():
    """The sun stands in rows and columns 1 to 3, all red; the sky has no red."""
    return _sun(1, 1.0, 0.0)


@expect(constant="the picture is fixed")
def mirrored():
    """Mirrored, columns 1 to 3 of 9 become 8 - 3 = 5 to 8 - 1 = 7; green is 0.7 in the sun."""
    return _sun(5, 0.7, 0.0)


@expect(constant="the picture is fixed")
def last_frame():
    """By frame 3, columns 1 to 3 have become 4 to 6, mirrored 2 to 4; blue is 0.8 around them."""
    return _sun(2, 0.0, 0.8)


def arange(size):
    """0, 1, ..., size - 1."""
    return np.array(list(range(size)))


@expect(constant="a dtype follows from the kind of the argument, not from its value")
def arange_dtypes():
    """An integer gives 64-bit integers, a decimal point 32-bit floating-point numbers."""
    return "torch.int64", "torch.float32"


@expect(constant="the list is written into the lesson")
def nested_shape():
    """The outer list has 1 element, which has 3 lists of 3 numbers."""
    return 1, 3, 3


@expect(rel=0, zero=True)
def zeros(rows, cols):
    """rows * cols zeros."""
    return np.zeros((rows, cols))


@expect(rel=0)
def ones(rows, cols):
    """rows * cols ones."""
    return np.full((rows, cols), 1.0)


def normal_shape(samples):
    """One axis with all the draws; by default, randn draws 32-bit numbers."""
    return (samples,), "torch.float32"


@expect(constant="for every seed and every number of draws")
def same_seed():
    """From the same seed come the same numbers; drawing on gives others."""
    return True, False


def bounds(samples):
    """5/sqrt(n) = sqrt(25/n), and 5 sqrt(2/k) + 25/k = sqrt(50/k) + 25/k with k = n - 1."""
    k = samples - 1
    return float(np.sqrt(25 / samples)), float(np.sqrt(50 / k) + 25 / k)


@expect(constant="the bounds follow the number of draws, so that they hold for every number")
def normal_moments():
    """|mean| > 5/sqrt(n) for 6 seeds in 10 million; |s^2 - 1| > sqrt(4t/k) + 2t/k, with t = 25/2,
    for fewer than 2 e^-t of all."""
    return True, True


def _x(size):
    return np.arange(1, size + 1)


def arithmetic(size):
    """With x = 1, 2, ..., n and y = 2: x + 2, x - 2, 2x, x/2, x squared."""
    x = _x(size)
    return x + 2, x - 2, 2 * x, x / 2, x * x


@expect(constant="dtypes do not depend on values")
def arithmetic_dtypes():
    """Sums, differences, products and powers of int64 are int64; a quotient is float32."""
    return "torch.int64", "torch.int64", "torch.int64", "torch.float32", "torch.int64"


@expect(elementwise=True)
def exponential(size):
    """e to the power of 1, 2, ..., n."""
    return np.exp(_x(size).astype(float))


@expect(constant="the two exponents are written into the lesson")
def overflow():
    """float32 ends at 2^128 = e^88.72, between e^88 and e^89."""
    return np.array([88, 89]) > 128 * np.log(2)


def total(size):
    """1 + 2 + ... + n = n(n+1)/2."""
    return np.int64(size * (size + 1) // 2)


def _grid(rows, cols):
    return np.array([[i * cols + j for j in range(cols)] for i in range(rows)])


def column_sums(rows, cols):
    """Row i holds i*cols + j; summed over i: cols * rows(rows-1)/2 + rows * j."""
    return cols * (rows * (rows - 1) // 2) + rows * np.arange(cols)


def mean(size):
    """n(n+1)/2 divided by n is (n+1)/2."""
    return np.float64((size + 1) / 2)


def cat_rows(rows, cols):
    """Row r is row r of the upper matrix; from r = rows on, it is row r - rows of the lower."""
    upper = _grid(rows, cols)
    return np.array([upper[r] if r < rows else upper[r - rows] + 100 for r in range(2 * rows)])


def cat_columns(rows, cols):
    """Row i of the result is row i of the upper matrix, then row i of the lower one."""
    return np.array([[*line, *(line + 100)] for line in _grid(rows, cols)])


def stacked(rows, cols):
    """A new first axis, as long as there are matrices: 2."""
    return 2, rows, cols


def _table(rows, cols):
    return np.array([[i + j for j in range(cols)] for i in range(rows)])


def by_hand(rows, cols):
    """i + j in row i and column j."""
    return _table(rows, cols)


def broadcast(rows, cols):
    """i + j in row i and column j."""
    return _table(rows, cols)


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


@expect(constant="a column moves by 1 number a row, and a stretched axis by none")
def stretched():
    """The next row is the next number, 1 further; the next column is the same number, 0 further."""
    return 1, 0


def in_place_value(size):
    """x + 2 = 3, 4, ..., n + 2."""
    return np.arange(3, size + 3)


@expect(rel=0)
def view_writes(rows, cols):
    """The last number of the flat view is the last of the last row; other object, same memory."""
    m = np.zeros((rows, cols))
    m[rows - 1, cols - 1] = 7
    return m, False, True


@expect(constant="where a result stands does not depend on its size")
def address_kept():
    """An in-place operation writes into the memory of a; a + b has memory of its own."""
    return {
        "a += b": True,
        "a[:] = a + b": True,
        "torch.add(a, b, out=a)": True,
        "a = a + b": False,
    }


def temporary_moved(size):
    """a is alive, so a + b stands elsewhere: 1024 * size numbers of 4 bytes."""
    return True, 4 * 1024 * size


def allocated(size):
    """Where a + b is written out, its 1024 * size numbers of 4 bytes; in place, nothing."""
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
    """0, 1, 2, ... with -1 written over the 0 in three of them, as they are one memory."""
    written = np.array([-1.0, *range(1, size)])
    return written, written, written, np.arange(float(size))


@expect(constant="conversions always have the same types")
def types():
    """A tensor, the array on its memory, and a tensor that copies the array."""
    return "torch.Tensor", "numpy.ndarray", "torch.Tensor"


@expect(constant="the two defaults")
def from_numpy_dtype():
    """NumPy makes 64-bit numbers and from_numpy keeps them; PyTorch makes 32-bit ones."""
    return "torch.float64", "torch.float32"


def round_trip(size):
    """x comes back as it went: 1, 2, ..., n."""
    return _x(size)


def products(rows, cols):
    """i times j, both counted from 1."""
    return np.array([[i * j for j in range(1, cols + 1)] for i in range(1, rows + 1)])


def centred(rows, cols):
    """Row i holds i*cols + j, with the mean i*cols + (cols-1)/2: what is left is j - (cols-1)/2."""
    return np.array([[j - (cols - 1) / 2 for j in range(cols)] for _ in range(rows)])


@expect(rel=0)
def in_place(size):
    """2 * 0 + 1, 2 * 1 + 1, ...: the odd numbers, in the object that was there before."""
    return np.arange(1.0, 2 * size, 2), True


@expect(rel=0)
def longer(rows, cols):
    """Two pages of zeros, then one of ones: (3, rows, cols)."""
    return np.array([np.full((rows, cols), number) for number in (0.0, 0.0, 1.0)])
