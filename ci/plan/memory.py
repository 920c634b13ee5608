"""How much memory the machine or the container has, and how much of it is still available."""

from contextlib import suppress
from pathlib import Path

import psutil

GIB = 2**30
RUN_BYTES = GIB  # enough for a lesson with two ranks
RANK_BYTES = GIB // 2  # of each further rank
RESERVED_SHARE = 0.05  # of all memory: with less available, the system begins to swap
RECLAIMABLE = ("inactive_file", "active_file")  # cached files, which the kernel drops first
CGROUP = Path("/sys/fs/cgroup")  # inside a container, its own control group


def total() -> int:
    """How much this process and its children may use, in bytes."""
    return min([psutil.virtual_memory().total, *_limits()])


def available() -> int:
    """How much of it they can still allocate before the system swaps or kills, in bytes."""
    machine: int = psutil.virtual_memory().available
    return min([machine, *(limit - _used() for limit in _limits())])


def reserve() -> int:
    """How much must stay available, in bytes."""
    return int(RESERVED_SHARE * total())


def share(usable: int, *, slots: int, ranks: int, gpus: int) -> int:
    """How many of the `usable` bytes a run may use if `slots` runs execute at once.

    A run with several GPUs occupies the slots of all of them. One with many ranks gets what these
    need, even if that is more than the share of its slot: few runs use all of theirs, and no run
    starts while the machine has little memory left.
    """
    needed = RUN_BYTES + RANK_BYTES * max(0, ranks - 2)
    return min(usable, max(usable * max(1, gpus) // slots, needed))


def _limits() -> list[int]:
    """The container's limit, from version 2 or 1 of control groups; empty without a limit."""
    texts = [_read("memory.max"), _read("memory/memory.limit_in_bytes")]
    return [int(text) for text in texts if text.isdecimal()]


def _used() -> int:
    """The bytes that count against the limit and cannot be reclaimed."""
    used = _read("memory.current") or _read("memory/memory.usage_in_bytes")
    table = _read("memory.stat") or _read("memory/memory.stat")
    stat = dict(line.split() for line in table.splitlines())
    reclaimable = [stat.get(f"total_{name}") or stat.get(name) or 0 for name in RECLAIMABLE]
    return int(used or 0) - sum(map(int, reclaimable))


def _read(name: str) -> str:
    with suppress(OSError):
        return (CGROUP / name).read_text().strip()
    return ""
