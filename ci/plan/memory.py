"""How much memory there is, and is left, before the machine would swap or end a process."""

from contextlib import suppress
from pathlib import Path

import psutil

GIB = 2**30
RUN = GIB  # what a lesson with two ranks may want
RESERVE = 0.05  # of all: with less than that left, the system begins to swap
FILES = ("inactive_file", "active_file")  # which the system gives up before it swaps
CGROUP = Path("/sys/fs/cgroup")  # of the container that we are in, if any


def total() -> int:
    """All that this process and its children may have, in bytes."""
    return min([psutil.virtual_memory().total, *_limit()])


def left() -> int:
    """What is left of it, in bytes."""
    machine: int = psutil.virtual_memory().available
    return min([machine, *(limit - _used() for limit in _limit())])


def reserve() -> int:
    """What must be left, in bytes."""
    return int(RESERVE * total())


def _limit() -> list[int]:
    """The container's limit, by version 2 or 1 of control groups; none elsewhere."""
    texts = [_read("memory.max"), _read("memory/memory.limit_in_bytes")]
    return [int(text) for text in texts if text.isdecimal()]


def _used() -> int:
    """What counts against the limit, without what is merely kept of files."""
    text = _read("memory.current") or _read("memory/memory.usage_in_bytes")
    facts = _read("memory.stat") or _read("memory/memory.stat")
    found = dict(line.split() for line in facts.splitlines())
    kept = [found.get(f"total_{name}") or found.get(name) or 0 for name in FILES]
    return int(text or 0) - sum(map(int, kept))


def _read(name: str) -> str:
    with suppress(OSError):
        return (CGROUP / name).read_text().strip()
    return ""
