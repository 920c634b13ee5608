"""A log of what DDP communicates."""

import time

from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

Message = tuple[int, float, float]  # bytes, and the seconds at which it began and ended


def log_messages(replica: DistributedDataParallel) -> list[Message]:
    """A list to which DDP adds every bucket that it communicates."""
    messages: list[Message] = []

    def send(_: object, bucket: GradBucket) -> Future[Tensor]:
        begin = time.monotonic()

        def end(future: Future[Tensor]) -> Tensor:
            messages.append((bucket.buffer().nbytes, begin, time.monotonic()))
            return future.value()

        return allreduce_hook(None, bucket).then(end)

    replica.register_comm_hook(None, send)
    return messages
