"""A GPU is never given to two runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ci.execute.leases import GpuPool
from ci.plan.gpus import Gpu
from ci.plan.schedule import pick

H100 = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(3)]
T4 = Gpu("9", "GPU-9", "T4")


def test_a_gpu_is_leased_once(tmp_path: Path) -> None:
    """Within an invocation the second run gets another one, and the third none."""
    pool = GpuPool(H100[:2], tmp_path)
    leases = [pool.lease(H100[:1]) for _ in range(3)]
    assert [lease and lease.gpus[0].index for lease in leases] == ["0", "1", None]
    assert pool.free == []


def test_a_lease_that_is_closed_can_be_given_again(tmp_path: Path) -> None:
    """To the next run."""
    pool = GpuPool(H100[:1], tmp_path)
    first = pool.lease(H100[:1])
    assert first
    first.close()
    assert pool.free == H100[:1]
    assert pool.lease(H100[:1])


def test_two_invocations_share_no_gpu(tmp_path: Path) -> None:
    """What one has, the other can't get, by any number."""
    one, other = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    assert one.lease(H100[:2])
    assert other.lease(H100[:2]) is None
    other.stop_waiting()
    lease = other.lease(H100[:1])
    assert lease
    assert lease.gpus == (H100[2],)


def test_who_waits_for_others_is_next(tmp_path: Path) -> None:
    """Small runs of one invocation don't keep a big one of another waiting."""
    small, big = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    first = small.lease(H100[:1])
    assert first
    assert big.lease(H100) is None
    assert big.waits
    assert small.lease(H100[:1]) is None
    first.close()
    assert big.lease(H100)
    assert not big.waits


def test_who_gives_up_lets_others_have_their_turn(tmp_path: Path) -> None:
    """An invocation that ends while it waits."""
    small, big = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    assert small.lease(H100[:1])
    assert big.lease(H100) is None
    big.stop_waiting()
    assert small.lease(H100[:1])


def test_who_waits_for_one_gpu_keeps_nobody_from_another(tmp_path: Path) -> None:
    """A turn is of the GPUs that an invocation may have."""
    first = GpuPool(H100[:1], tmp_path)
    assert first.lease(H100[:1])
    waits, other = GpuPool(H100[:1], tmp_path), GpuPool(H100[1:2], tmp_path)
    assert waits.lease(H100[:1]) is None
    assert other.lease(H100[1:2])


def test_who_is_refused_a_turn_waits(tmp_path: Path) -> None:
    """And whoever has it is wanted by nobody but others."""
    first, second, third = (GpuPool(H100[:1], tmp_path) for _ in range(3))
    assert first.lease(H100[:1])
    assert not first.wanted
    assert second.lease(H100[:1]) is None
    assert third.lease(H100[:1]) is None
    assert (second.waits, third.waits) == (True, True)
    assert (first.wanted, second.wanted, third.wanted) == (True, False, True)


def test_locks_are_for_every_user(tmp_path: Path) -> None:
    """Whatever the umask of whoever came first."""
    before = os.umask(0o077)
    try:
        assert GpuPool(H100[:1], tmp_path / "leases").lease(H100[:1])
    finally:
        os.umask(before)
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "leases" / "GPU-0.lock").stat().st_mode & 0o777 == 0o444


def test_a_run_without_gpus_needs_no_turn(tmp_path: Path) -> None:
    """It leases none, at once, and leaves no file."""
    lease = GpuPool([], tmp_path).lease([])
    assert lease
    assert lease.gpus == ()
    assert not list(tmp_path.iterdir())


def test_a_run_gets_gpus_of_its_kind(tmp_path: Path) -> None:
    """What it was planned on is part of what its result stands on."""
    assert pick([T4], [*H100, T4]) == (T4,)
    assert pick(H100[:1], [T4]) is None
    assert pick([*H100[:1], T4], [T4, H100[1]]) == (H100[1], T4)


def test_a_killed_invocation_gives_all_back(tmp_path: Path) -> None:
    """A lock lasts as long as the process that has it."""
    code = (
        "import time\nfrom pathlib import Path\n"
        "from ci.plan.gpus import Gpu\nfrom ci.execute.leases import GpuPool\n"
        f"gpus = [Gpu('0', 'GPU-0', 'H100')]; pool = GpuPool(gpus, Path({str(tmp_path)!r}))\n"
        "lease = pool.lease(gpus); print('has it', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process, process.stdout as lines:
        assert lines.readline() == "has it\n"
        pool = GpuPool(H100[:1], tmp_path)
        assert pool.lease(H100[:1]) is None
        process.kill()
    assert pool.lease(H100[:1])


def test_a_worker_that_goes_on_keeps_its_gpus(tmp_path: Path) -> None:
    """Whoever started it was killed: the GPU is free when the worker is gone, not before."""
    pool = GpuPool(H100[:1], tmp_path)
    lease = pool.lease(H100[:1])
    assert lease
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=lease.descriptors
    ) as worker:
        lease.close()
        assert pool.lease(H100[:1]) is None
        assert worker.stdin
        worker.stdin.close()
        worker.wait()
    assert pool.lease(H100[:1])


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    """The folder is everybody's."""
    (tmp_path / "GPU-0.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        GpuPool(H100[:1], tmp_path).lease(H100[:1])
    assert not (tmp_path / "elsewhere").exists()
