"""What lesson 01 must show, derived without PyTorch."""

import tomllib
from pathlib import Path

import numpy as np

from ci.lesson.expect import expect


def _per_device(gpus, value):
    return dict.fromkeys(["cpu", *(f"cuda:{i}" for i in range(gpus))], value)


def _row_sums(size):
    first = size * (size - 1) / 2
    return np.array([[first, first], [first + size**2, first + size**2]])


@expect(rel=0, dtype="float64", device="numpy")
def in_numpy(size):
    """A row times ones is its sum: n(n-1)/2 for 0 ... n-1, and n^2 more for n ... 2n-1."""
    return _row_sums(size)


@expect(rel=0)
def in_torch(size):
    """The same sums: n(n-1)/2 and n(n-1)/2 + n^2."""
    return _row_sums(size)


def bytes_taken(size):
    """NumPy makes numbers of 64 bits, 8 bytes; PyTorch of 32 bits, 4 bytes."""
    return 8 * size, 4 * size


def _squared_error(size):
    return np.float64(1 + (size - 2) * (size - 1) * (2 * size - 3) / 6)


@expect(rel=0)
def repaired(size):
    """3i - (2i + 1) = i - 1, and 1 + 0 + 1 + 4 + ... + (n-2)^2 = 1 + (n-2)(n-1)(2n-3)/6."""
    return _squared_error(size)


@expect(rel=0)
def step_by_step(size):
    """3i; 3i - (2i + 1) = i - 1; and the sum of their squares, 1 + (n-2)(n-1)(2n-3)/6."""
    i = np.arange(float(size))
    return 3 * i, i - 1, _squared_error(size)


@expect(constant="the course is written for one version")
def version():
    """The version that the project asks for in its pyproject.toml."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    needs = tomllib.loads(text)["project"]["optional-dependencies"]["here"]
    (pin,) = [need.removeprefix("torch==") for need in needs if need.startswith("torch==")]
    return pin


def accelerator(gpus):
    """There is one if the run was given a GPU."""
    return gpus > 0


def device_count(gpus):
    """The number of GPUs that the run was given."""
    return gpus


def first_sum(size, gpus):
    """1 + 2 + ... + n = n(n+1)/2, on each device."""
    return _per_device(gpus, np.int64(size * (size + 1) // 2))


@expect(rel=0)
def first_product(size, gpus):
    """The sum over k of (in + k)(kn + j): whole numbers below 2^24, so float32 holds them all."""
    entries = [
        [sum((i * size + k) * (k * size + j) for k in range(size)) for j in range(size)]
        for i in range(size)
    ]
    return _per_device(gpus, np.array(entries, dtype=float))


@expect(rel=0)
def first_gradient(size, gpus):
    """y = sum(x_i^2), so dy/dx_i = 2 x_i, with x = 0, 1, ..., n-1; exact, as it only doubles."""
    return _per_device(gpus, 2 * np.arange(size, dtype=float))


def matrix_bytes(size):
    """n times n numbers, of 8 bytes in NumPy and of 4 in PyTorch."""
    return 8 * size * size, 4 * size * size


def squares(size):
    """1 + 4 + ... + n^2 = n(n+1)(2n+1)/6; and n @ n multiplies each number by itself, then adds."""
    total = np.int64(size * (size + 1) * (2 * size + 1) // 6)
    return total, total


@expect(rel=0)
def steepness(size):
    """y = sum(x_i^3), so dy/dx_i = 3 x_i^2, with x = 0, 1, ..., n-1."""
    return 3 * np.arange(size, dtype=float) ** 2
