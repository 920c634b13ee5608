"""Leases of GPUs: none is given to two runs, also not by two invocations on one machine.

A lease is a lock on a file for each of its GPUs. A worker on this machine inherits the open files,
so that its GPUs are free when it is gone, whoever was killed before. Invocations that don't see the
same folder, by a private /tmp or in a container, don't see each other.
"""

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from ci.plan.gpus import Gpu


def _folder() -> Path:
    """Where everybody may write and nobody clears up: not the folder for a user's own files."""
    shared = Path("/run/lock")
    everybody = shared.is_dir() and shared.stat().st_mode & 0o002
    return (shared if everybody else Path("/tmp")) / "pytorch-course"


FOLDER = _folder()


class Lease:
    """GPUs that are ours until it is closed. `descriptors` are of the files that say so."""

    def __init__(self, gpus: Sequence[Gpu] = (), descriptors: Sequence[int] = ()) -> None:
        self.gpus, self.descriptors = tuple(gpus), list(descriptors)

    def close(self) -> None:
        """Give the GPUs back, as soon as no worker has them any more."""
        _close(self.descriptors)


class Desk:
    """Where the runs of one invocation get GPUs, of those that it was granted. Never waits.

    `waits` is whether the last run that wanted some could not get them for others.
    """

    def __init__(self, gpus: Sequence[Gpu], folder: Path | None = None) -> None:
        self._gpus, self._folder = tuple(gpus), folder or FOLDER
        self._given: list[Lease] = []
        self._turn: list[int] = []
        self.waits = False

    @property
    def free(self) -> list[Gpu]:
        """The GPUs that no run of this invocation has; others may have them."""
        self._given = [lease for lease in self._given if lease.descriptors]
        ours = {gpu for lease in self._given for gpu in lease.gpus}
        return [gpu for gpu in self._gpus if gpu not in ours]

    @property
    def wanted(self) -> bool:
        """Whether another invocation waits for GPUs that we may have."""
        if self._turn:
            return False
        refused = not self._take_turn()
        _close(self._turn)
        return refused

    def lease(self, wanted: Sequence[Gpu]) -> Lease | None:
        """GPUs of the kinds of `wanted`; None where there are not as many now.

        Whoever waits for others is the next to get what they give back: many small runs of one
        invocation don't keep a big one of another waiting.
        """
        if not wanted:
            return Lease()
        if not pick(wanted, self.free):
            self.close()
            return None
        self.waits = True
        if not (self._turn or self._take_turn()):
            return None
        locks = {gpu: lock for gpu in self.free if (lock := self._lock(gpu.uuid)) is not None}
        chosen = pick(wanted, list(locks)) or ()
        lease = Lease(chosen, [locks.pop(gpu) for gpu in chosen])
        _close([*locks.values()])
        if not chosen:
            return None
        self.close()
        self._given.append(lease)
        return lease

    def close(self) -> None:
        """Want none for now, and let others have their turn."""
        self.waits = False
        _close(self._turn)

    def _take_turn(self) -> bool:
        """Be the next at each GPU that we may have, or at none."""
        for gpu in sorted(self._gpus, key=lambda gpu: gpu.uuid):
            lock = self._lock(f"turn-{gpu.uuid}")
            if lock is None:
                _close(self._turn)
                return False
            self._turn.append(lock)
        return True

    def _lock(self, name: str) -> int | None:
        """The descriptor of a locked file; None where somebody else has it."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
        with contextlib.suppress(PermissionError):  # it is somebody else's, who has done it
            self._folder.chmod(0o1777)
        path = self._folder / f"{name}.lock"
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
            os.fchmod(made, 0o444)  # whatever our umask
            os.close(made)
        # To read is enough for a lock; others' files can't be opened to write in such a folder.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)  # somebody has it, or has removed the file meanwhile
        return None


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


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
