"""Compare results with those of one device, and list all differences."""

import torch
from torch import Tensor

_differences: dict[str, float] = {}  # by the name of what was compared


def compare(name: str, result: Tensor, expected: Tensor) -> None:
    """Print the largest difference, relative to the largest expected element."""
    difference = (result.to(expected.device) - expected).abs().max() / expected.abs().max()
    _differences[name] = difference.item()
    print(f"{name}: {difference:.1e} from one device")


def print_table(dtype: str) -> None:
    """Print all differences so far, and the size of a rounding error."""
    for name, difference in _differences.items():
        print(f"{name:28} {difference:.1e}")
    print(f"{'eps':28} {torch.finfo(getattr(torch, dtype)).eps:.1e}")
