"""The run queue: which slot gets which run, and when."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ci.execute import leases, run_queue
from ci.execute.run_queue import RunQueue
from ci.plan import memory, planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from tests.conftest import Read, eventually

GPUS = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(4)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use lock files of this test only."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")


@pytest.fixture
def runs(read: Read) -> Callable[..., list[Run]]:
    """A function that makes runs of one lesson with these numbers of GPUs."""
    lesson = read()
    return lambda *sizes: [
        replace(planner.Run(lesson, {"size": i}), gpus=(*GPUS[:n],)) for i, n in enumerate(sizes)
    ]


def queue_of(runs: list[Run], *, room: int = 0, gpus: int = 4) -> RunQueue:
    """A queue of these runs on `gpus` GPUs."""
    return RunQueue(runs, GPUS[:gpus], room)


def test_runs_are_taken_in_order(runs: Callable[..., list[Run]]) -> None:
    """Each once."""
    planned = runs(0, 0)
    queue = queue_of(planned)
    assert [found[0] for _ in range(2) if (found := queue.take())] == planned
    assert queue.take() is None


def test_a_smaller_run_can_overtake_one_that_does_not_fit(runs: Callable[..., list[Run]]) -> None:
    """With one of four GPUs free, a run with one GPU starts before a run with two."""
    planned = runs(3, 2, 1)
    queue = queue_of(planned)
    assert [found[0] for _ in range(2) if (found := queue.take())] == [planned[0], planned[2]]


def test_released_gpus_can_be_taken(runs: Callable[..., list[Run]]) -> None:
    """By the run that needs them."""
    planned = runs(4, 4)
    queue = queue_of(planned)
    first = queue.take()
    assert first
    queue.release(first[1])
    second = queue.take()
    assert second
    assert second[0] == planned[1]


def test_a_server_continues_with_a_run_on_the_same_gpus(runs: Callable[..., list[Run]]) -> None:
    """And not with a run that needs more."""
    planned = runs(2, 2, 4)
    queue = queue_of(planned, gpus=4)
    first = queue.take()
    assert first
    assert queue.next_like(*first) == planned[1]
    assert queue.next_like(*first) is None


def test_a_server_continues_with_a_run_of_the_same_lesson(read: Read) -> None:
    """A container has the files of one lesson."""
    planned = [planner.Run(read(name=name), {}) for name in ("01_one", "02_two", "01_one")]
    queue = queue_of(planned)
    first = queue.take()
    assert first
    assert queue.next_like(*first) == planned[2]


def test_a_job_continues_with_a_run_of_another_lesson(read: Read) -> None:
    """A scheduler leases GPUs and cores: what counts is how many a run needs."""
    sizes = {"01_one": 1, "02_two": 2, "03_three": 1}
    planned = [planner.Run(read(name=n), {"world_size": size}) for n, size in sizes.items()]
    queue = RunQueue(planned, [], 0, is_scheduled=True)
    first = queue.take()
    assert first
    assert queue.next_like(*first) == planned[2]
    assert queue.next_like(*first) is None


def test_a_scheduler_leases_the_gpus(runs: Callable[..., list[Run]]) -> None:
    """More runs may ask it for GPUs than one node has."""
    queue = RunQueue(runs(4, 4), GPUS, 0, is_scheduled=True)
    leases = [found[1] for _ in range(2) if (found := queue.take())]
    assert [lease.gpus for lease in leases] == [tuple(GPUS)] * 2


def test_a_run_that_is_put_back_is_the_next(runs: Callable[..., list[Run]]) -> None:
    """It has not started."""
    planned = runs(0, 0)
    queue = RunQueue(planned, [], 0, is_scheduled=True)
    first = queue.take()
    assert first
    queue.put_back(first[0])
    assert queue.has_like(planned[1])
    assert queue.next_like(*first) == planned[0]


def test_a_lost_run_is_repeated_once(runs: Callable[..., list[Run]]) -> None:
    """The second time, it fails."""
    queue = RunQueue(runs(0), [], 0, is_scheduled=True)
    first = queue.take()
    assert first
    assert queue.again(first[0])
    assert queue.next_like(*first) == first[0]
    assert not queue.again(first[0])


def test_no_run_starts_after_a_stop(runs: Callable[..., list[Run]]) -> None:
    """For example, the plan was interrupted."""
    queue = queue_of(runs(0, 0))
    first = queue.take()
    assert first
    queue.stop()
    assert queue.take() is None
    assert queue.next_like(*first) is None


def test_with_little_memory_runs_execute_one_at_a_time(
    runs: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last server continues, so that the plan still ends."""
    planned = runs(0, 0, 0)
    queue = queue_of(planned, room=0)
    first, second = queue.take(), queue.take()
    assert first and second
    monkeypatch.setattr(memory, "available", lambda: -1)
    assert queue.next_like(*first) is None
    queue.release(first[1])
    assert queue.next_like(*second) == planned[2]


def test_only_a_run_without_gpus_overtakes_a_waiting_run(
    runs: Callable[..., list[Run]],
) -> None:
    """Small runs with GPUs could delay a large run forever."""
    planned = runs(4, 1, 0)
    others = leases.GpuPool(GPUS)
    lease = others.lease(GPUS[:1])
    assert lease
    queue = queue_of(planned)
    first = queue.take()
    assert first
    assert first[0] == planned[2]
    lease.close()
    second = queue.take()
    assert second
    assert second[0] == planned[0]


def test_a_server_releases_gpus_that_another_invocation_waits_for(
    runs: Callable[..., list[Run]],
) -> None:
    """Then the other invocation is next."""
    planned = runs(1, 1, 1)
    queue = queue_of(planned, gpus=1)
    first = queue.take()
    assert first
    assert queue.next_like(*first) == planned[1]
    others = leases.GpuPool(GPUS[:1])
    assert others.lease(GPUS[:1]) is None
    assert queue.next_like(*first) is None
    queue.release(first[1])
    assert others.lease(GPUS[:1])


def test_a_run_that_needs_too_many_gpus_is_rejected(runs: Callable[..., list[Run]]) -> None:
    """It would wait forever."""
    with pytest.raises(ValueError, match="needs GPUs that are not among those to lease"):
        queue_of(runs(2), gpus=1)


def test_waiting_for_another_invocation_is_reported_once(runs: Callable[..., list[Run]]) -> None:
    """Waiting for a run of the same invocation is not reported."""
    planned = runs(4, 4)
    others = leases.GpuPool(GPUS)
    assert others.lease(GPUS[:1])
    queue = queue_of(planned)
    assert queue.newly_blocked() is None
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(queue.take)
        assert eventually(lambda: queue.newly_blocked() == planned[0])
        time.sleep(3 * run_queue.POLL_S)
        assert queue.newly_blocked() is None
        queue.stop()
        assert taken.result() is None
