"""The network of the parallel lessons: two layers, small enough to differentiate by hand."""

from collections.abc import Mapping

from torch import Tensor, nn


class Network(nn.Module):
    """out = tanh(x W1^T) W2^T, with its own copy of the weights it starts from."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.W1 = nn.Parameter(weights["W1"].clone())  # (hidden, features)
        self.W2 = nn.Parameter(weights["W2"].clone())  # (1, hidden)

    def forward(self, x: Tensor) -> Tensor:  # (n, features)
        h = (x @ self.W1.T).tanh()  # (n, hidden)
        return h @ self.W2.T  # (n, 1)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the gradient of each parameter, by the parameter's name."""
    return {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
