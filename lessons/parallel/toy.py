"""Small tasks for the parallel lessons, the same for each seed."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def make_task(
    batch: int, features: int, hidden: int, seed: int, dtype: str, device: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Weights of two layers, samples (batch, features), and targets (batch, 1)."""

    def tensor(array: NDArray[np.float64]) -> Tensor:
        return torch.tensor(array, dtype=getattr(torch, dtype), device=device)

    rng = np.random.default_rng(seed)
    W1 = rng.uniform(-1, 1, (hidden, features)) / hidden**0.5  # the roots keep values moderate
    W2 = rng.uniform(-1, 1, (1, hidden)) / hidden**0.5
    x = rng.uniform(-1, 1, (batch, features)) / features**0.5
    y = np.where(x.sum(axis=1, keepdims=True) > 0, 0.25, -0.25)
    return {"W1": tensor(W1), "W2": tensor(W2)}, tensor(x), tensor(y)


def make_regression(
    batch: int, features: int, seed: int, dtype: str, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, samples and targets of a linear regression; later targets are larger by up to 1."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 1, features)
    x = rng.uniform(0.5, 1, (batch, features)) / features**0.5
    y = 2 * x.sum(axis=1) + np.linspace(0, 1, batch)
    w, x, y = (torch.tensor(a, dtype=getattr(torch, dtype), device=device) for a in (w, x, y))
    return w, x, y
