"""A rank program of lesson 08: torch's pipeline schedule, with the batch in several pieces."""

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.nn.functional import mse_loss

from parallel.pitfalls import Regression


def pipelined(device: torch.device, w: Tensor, x: Tensor, y: Tensor, pieces: int) -> Tensor:
    """The gradient over all microbatches, on a pipeline of one stage."""
    network = Regression(w).to(device)
    stage = PipelineStage(network, 0, 1, device)
    schedule = ScheduleGPipe(stage, pieces, loss_fn=mse_loss)
    schedule.step(x.to(device), target=y.to(device))
    return network.w.grad
