"""Jupyter's client of a kernel, without its waiting for silence."""

import contextlib
import math
import queue
import time

from jupyter_client.asynchronous.client import AsyncKernelClient

ASK_AGAIN_S = 1.0  # until a kernel is ready


class LessonKernelClient(AsyncKernelClient):
    """Jupyter's client, but ready as soon as the kernel is."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel has answered on the shell channel and is idle on iopub.

        Jupyter waits until nothing has arrived for 0.2 s. Raises RuntimeError where the kernel dies
        or is late.
        """
        deadline = time.monotonic() + (timeout or math.inf)
        while time.monotonic() < deadline:
            asked = self.kernel_info()
            with contextlib.suppress(queue.Empty):
                await self.shell_channel.get_msg(timeout=ASK_AGAIN_S)
                heard = None
                while heard != (asked, "idle"):  # earlier messages have arrived by then
                    message = await self.iopub_channel.get_msg(timeout=ASK_AGAIN_S)
                    state = message["content"].get("execution_state")
                    heard = (message["parent_header"].get("msg_id"), state)
                return
            if not await self.is_alive():
                raise RuntimeError("it died before it was ready")
        raise RuntimeError(f"it was not ready in {timeout:g} s")
