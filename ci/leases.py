"""Leases of GPUs: none is given to two runs, also not by two invocations on one machine.

A lease is a lock on a file for each of its GPUs. The worker that the GPUs are for inherits the open
files, so that they are free when it is gone, whoever was killed before.
"""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ci.gpus import Gpu

# Not tempfile's: that may be another one for each user, and the GPUs are the same ones.
FOLDER = Path("/tmp/pytorch-course-leases")
TURN = "turn"  # the lock of whoever is next to get GPUs that others have


class Lease:
    """GPUs that are ours until it is closed. `descriptors` are of the files that say so."""

    def __init__(self, gpus: Sequence[Gpu] = (), descriptors: Sequence[int] = ()) -> None:
        self.gpus, self.descriptors = tuple(gpus), list(descriptors)

    def close(self) -> None:
        """Give the GPUs back, as soon as no worker has them any more."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Desk:
    """Where the runs of one invocation get GPUs, of those that it was granted. Never waits."""

    def __init__(self, gpus: Sequence[Gpu], folder: Path | None = None) -> None:
        self._gpus, self._folder = tuple(gpus), folder or FOLDER
        self._given: list[Lease] = []
        self._turn: int | None = None

    @property
    def waits(self) -> bool:
        """Whether GPUs were wanted that another invocation has."""
        return self._turn is not None

    @property
    def free(self) -> list[Gpu]:
        """The GPUs that no run of this invocation has; others may have them."""
        self._given = [lease for lease in self._given if lease.descriptors]
        ours = {gpu for lease in self._given for gpu in lease.gpus}
        return [gpu for gpu in self._gpus if gpu not in ours]

    def lease(self, wanted: Sequence[Gpu]) -> Lease | None:
        """GPUs of the kinds of `wanted`; None where there are not as many now.

        Whoever waits for others has its turn before they can take more: many small runs of one
        invocation don't keep a big one of another waiting.
        """
        if not wanted:
            return Lease()
        if not pick(wanted, self.free) or not self._has_turn():
            return None
        locks = {gpu: lock for gpu in self.free if (lock := self._lock(gpu.uuid)) is not None}
        chosen = pick(wanted, list(locks)) or ()
        lease = Lease(chosen, [locks.pop(gpu) for gpu in chosen])
        for lock in locks.values():
            os.close(lock)
        if not chosen:
            return None
        self.close()
        self._given.append(lease)
        return lease

    def close(self) -> None:
        """Let others have their turn."""
        if self._turn is not None:
            os.close(self._turn)
        self._turn = None

    def _has_turn(self) -> bool:
        if self._turn is None:
            self._turn = self._lock(TURN)
        return self._turn is not None

    def _lock(self, name: str) -> int | None:
        """The descriptor of a locked file; None where somebody else has it."""
        with suppress(FileExistsError):
            self._folder.mkdir()
            self._folder.chmod(0o1777)  # for every user, whatever our umask
        path = self._folder / f"{name}.lock"
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444))
        # To read is enough for a lock; others' files can't be opened to write in such a folder.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


def pick(wanted: Sequence[Gpu], free: Sequence[Gpu]) -> tuple[Gpu, ...] | None:
    """As many of the `free` GPUs, of the same kinds; None where there are too few."""
    left, chosen = list(free), []
    for gpu in wanted:
        alike = next((each for each in left if each.name == gpu.name), None)
        if alike is None:
            return None
        left.remove(alike)
        chosen.append(alike)
    return tuple(chosen)
