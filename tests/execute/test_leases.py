"""Leases: no GPU is given to two runs."""

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
    """Within an invocation, the second run gets another GPU, and the third none."""
    pool = GpuPool(H100[:2], tmp_path)
    leases = [pool.lease(H100[:1]) for _ in range(3)]
    assert [lease and lease.gpus[0].index for lease in leases] == ["0", "1", None]
    assert pool.free == []


def test_a_released_gpu_can_be_leased_again(tmp_path: Path) -> None:
    """By the next run."""
    pool = GpuPool(H100[:1], tmp_path)
    first = pool.lease(H100[:1])
    assert first
    first.close()
    assert pool.free == H100[:1]
    assert pool.lease(H100[:1])


def test_two_invocations_share_no_gpu(tmp_path: Path) -> None:
    """One cannot lease a GPU that the other has."""
    one, other = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    assert one.lease(H100[:2])
    assert other.lease(H100[:2]) is None
    other.stop_waiting()
    lease = other.lease(H100[:1])
    assert lease
    assert lease.gpus == (H100[2],)


def test_a_waiting_invocation_is_next(tmp_path: Path) -> None:
    """Small runs of one invocation do not delay a large run of another one forever."""
    small, big = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    first = small.lease(H100[:1])
    assert first
    assert big.lease(H100) is None
    assert big.waits
    assert small.lease(H100[:1]) is None
    first.close()
    assert big.lease(H100)
    assert not big.waits


def test_an_invocation_that_stops_waiting_gives_up_its_turn(tmp_path: Path) -> None:
    """Others can lease the GPUs again."""
    small, big = GpuPool(H100, tmp_path), GpuPool(H100, tmp_path)
    assert small.lease(H100[:1])
    assert big.lease(H100) is None
    big.stop_waiting()
    assert small.lease(H100[:1])


def test_waiting_for_one_gpu_does_not_block_another(tmp_path: Path) -> None:
    """An invocation has a turn only for the GPUs that it was granted."""
    first = GpuPool(H100[:1], tmp_path)
    assert first.lease(H100[:1])
    waits, other = GpuPool(H100[:1], tmp_path), GpuPool(H100[1:2], tmp_path)
    assert waits.lease(H100[:1]) is None
    assert other.lease(H100[1:2])


def test_several_invocations_can_wait(tmp_path: Path) -> None:
    """Each of them makes the others see the GPU as wanted."""
    first, second, third = (GpuPool(H100[:1], tmp_path) for _ in range(3))
    assert first.lease(H100[:1])
    assert not first.wanted
    assert second.lease(H100[:1]) is None
    assert third.lease(H100[:1]) is None
    assert (second.waits, third.waits) == (True, True)
    assert (first.wanted, second.wanted, third.wanted) == (True, False, True)


def test_every_user_can_use_the_locks(tmp_path: Path) -> None:
    """No matter which umask their creator had."""
    before = os.umask(0o077)
    try:
        assert GpuPool(H100[:1], tmp_path / "leases").lease(H100[:1])
    finally:
        os.umask(before)
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "leases" / "GPU-0.lock").stat().st_mode & 0o777 == 0o444


def test_a_run_without_gpus_gets_an_empty_lease(tmp_path: Path) -> None:
    """At once, and without a lock file."""
    lease = GpuPool([], tmp_path).lease([])
    assert lease
    assert lease.gpus == ()
    assert not list(tmp_path.iterdir())


def test_a_run_gets_gpus_of_the_planned_kind(tmp_path: Path) -> None:
    """Its result depends on the kind."""
    assert pick([T4], [*H100, T4]) == (T4,)
    assert pick(H100[:1], [T4]) is None
    assert pick([*H100[:1], T4], [T4, H100[1]]) == (H100[1], T4)


def test_a_killed_invocation_releases_its_gpus(tmp_path: Path) -> None:
    """A lock ends with its process."""
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


def test_a_surviving_worker_keeps_its_gpus(tmp_path: Path) -> None:
    """If its invocation was killed, the GPU becomes free when the worker ends."""
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
    """Every user can write to the folder."""
    (tmp_path / "GPU-0.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        GpuPool(H100[:1], tmp_path).lease(H100[:1])
    assert not (tmp_path / "elsewhere").exists()
