"""Leases of GPUs: no GPU is leased to two runs, across all invocations on this machine.

A lease is a lock on one file per GPU. A run process on this machine inherits the open files, so
that its GPUs stay leased until it has ended, even if this process is killed. Invocations that do
not see the same folder (in a container, or with a private /tmp) do not see each other's leases.
"""

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from ci.plan.gpus import Gpu
from ci.plan.schedule import pick


def _shared_folder() -> Path:
    """A folder where everyone can write and nothing is cleaned up while it is in use."""
    lock = Path("/run/lock")
    is_shared = lock.is_dir() and lock.stat().st_mode & 0o002
    return (lock if is_shared else Path("/tmp")) / "pytorch-course"


FOLDER = _shared_folder()


class Lease:
    """GPUs that are leased until `close`; `descriptors` are the open lock files."""

    def __init__(self, gpus: Sequence[Gpu] = (), descriptors: Sequence[int] = ()) -> None:
        self.gpus, self.descriptors = tuple(gpus), list(descriptors)

    def close(self) -> None:
        """Return the GPUs. They are free as soon as no run process holds the lock files either."""
        _close(self.descriptors)


class GpuPool:
    """The GPUs that one invocation may lease. It never waits.

    `waits` says whether the last request failed because other invocations hold the GPUs.
    """

    def __init__(self, gpus: Sequence[Gpu], folder: Path | None = None) -> None:
        self._gpus, self._folder = tuple(gpus), folder or FOLDER
        self._leases: list[Lease] = []
        self._turn: list[int] = []
        self.waits = False

    @property
    def free(self) -> list[Gpu]:
        """The GPUs that no run of this invocation holds; other invocations may hold them."""
        self._leases = [lease for lease in self._leases if lease.descriptors]
        leased = {gpu for lease in self._leases for gpu in lease.gpus}
        return [gpu for gpu in self._gpus if gpu not in leased]

    @property
    def wanted(self) -> bool:
        """Whether another invocation waits for GPUs of this pool."""
        if self._turn:
            return False
        refused = not self._take_turn()
        _close(self._turn)
        return refused

    def lease(self, wanted: Sequence[Gpu]) -> Lease | None:
        """A lease of GPUs of the same models as `wanted`; None where too few are free now.

        An invocation that waits is the next to get GPUs that others return, so that many small runs
        of one invocation cannot keep a large run of another waiting.
        """
        if not wanted:
            return Lease()
        if not pick(wanted, self.free):
            self.stop_waiting()
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
        self.stop_waiting()
        self._leases.append(lease)
        return lease

    def stop_waiting(self) -> None:
        """Give the turn to other invocations."""
        self.waits = False
        _close(self._turn)

    def _take_turn(self) -> bool:
        """Become the next in line at all GPUs of this pool, or at none."""
        for gpu in sorted(self._gpus, key=lambda gpu: gpu.uuid):
            lock = self._lock(f"turn-{gpu.uuid}")
            if lock is None:
                _close(self._turn)
                return False
            self._turn.append(lock)
        return True

    def _lock(self, name: str) -> int | None:
        """The descriptor of a locked file; None where another process holds the lock."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
        with contextlib.suppress(PermissionError):  # another user owns the folder, and has done it
            self._folder.chmod(0o1777)
        path = self._folder / f"{name}.lock"
        with contextlib.suppress(FileExistsError):
            created = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
            os.fchmod(created, 0o444)  # regardless of the umask
            os.close(created)
        # Reading is enough for a lock, and other users' files cannot be opened for writing here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)  # another process holds it, or has removed the file meanwhile
        return None


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
