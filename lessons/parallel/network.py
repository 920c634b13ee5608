"""The networks of the parallel lessons, small enough to differentiate by hand."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Named = Mapping[str, Tensor]  # a tensor for each parameter of a network, by its name


class Network(nn.Module):
    """out = tanh(x W1^T) W2^T, with its own copy of the initial weights."""

    def __init__(self, weights: Named) -> None:
        super().__init__()
        self.W1 = nn.Parameter(weights["W1"].clone())  # (hidden, features)
        self.W2 = nn.Parameter(weights["W2"].clone())  # (1, hidden)

    def forward(self, x: Tensor) -> Tensor:  # (n, features)
        h = (x @ self.W1.T).tanh()  # (n, hidden)
        return h @ self.W2.T  # (n, 1)


class Stage(nn.Module):
    """Layers one after the other, h <- tanh(h W^T) for each of the weights in their order."""

    def __init__(self, weights: Named) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight.clone()))

    @property
    def width(self) -> int:
        """How many elements of a sample this stage receives."""
        return next(self.parameters()).shape[1]

    def forward(self, h: Tensor) -> Tensor:
        for W in self.parameters():
            h = (h @ W.T).tanh()
        return h


def row(named: Named) -> Tensor:
    """All elements of the tensors, one after the other, in one long row."""
    return torch.cat([tensor.flatten() for tensor in named.values()])


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the gradient of each parameter, by the parameter's name."""
    return {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def parameters(network: nn.Module) -> dict[str, Tensor]:
    """A copy of each parameter, by its name."""
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}
