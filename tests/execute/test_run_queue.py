"""Who takes which run, when."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ci.execute import leases
from ci.execute.run_queue import RunQueue
from ci.plan import memory, planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from tests.conftest import Read

GPUS = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(4)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test alone."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")


@pytest.fixture
def runs(read: Read) -> Callable[..., list[Run]]:
    """Runs of one lesson on so many GPUs each."""
    lesson = read()
    return lambda *sizes: [
        replace(planner.Run(lesson, {"size": i}), gpus=(*GPUS[:n],)) for i, n in enumerate(sizes)
    ]


def waiting(
    runs: list[Run], *, slots: int = 2, shared: bool = True, room: int = 0, gpus: int = 4
) -> RunQueue:
    """They wait for GPUs that there are."""
    return RunQueue(runs, GPUS[:gpus], room, slots=slots, shared=shared)


def test_runs_are_taken_in_their_order(runs: Callable[..., list[Run]]) -> None:
    """Each once, and then none."""
    made = runs(0, 0)
    line = waiting(made)
    assert [found[0] for _ in range(2) if (found := line.take())] == made
    assert line.take() is None


def test_a_run_that_does_not_fit_lets_a_smaller_one_by(runs: Callable[..., list[Run]]) -> None:
    """Three of four GPUs are given: the next has one, not two."""
    made = runs(3, 2, 1)
    line = waiting(made)
    assert [found[0] for _ in range(2) if (found := line.take())] == [made[0], made[2]]


def test_gpus_are_free_when_a_worker_has_left(runs: Callable[..., list[Run]]) -> None:
    """The run that waited for them is taken."""
    made = runs(4, 4)
    line = waiting(made)
    first = line.take()
    assert first
    line.release(first[1])
    second = line.take()
    assert second
    assert second[0] == made[1]


def test_a_worker_goes_on_to_a_run_like_its_first(runs: Callable[..., list[Run]]) -> None:
    """On the same GPUs; not to one that wants more."""
    made = runs(2, 2, 4)
    line = waiting(made, gpus=4)
    first = line.take()
    assert first
    assert line.next_compatible(*first) == made[1]
    assert line.next_compatible(*first) is None


def test_a_worker_does_not_go_on_to_another_lesson_in_the_lab(read: Read) -> None:
    """There a worker has what one lesson needs; here any."""
    made = [planner.Run(read(name=name), {}) for name in ("01_one", "02_two", "01_one")]
    here, lab = waiting(made), waiting(made, shared=False)
    first, other = here.take(), lab.take()
    assert first and other
    assert here.next_compatible(*first) == made[1]
    assert lab.next_compatible(*other) == made[2]


def test_nothing_begins_after_a_stop(runs: Callable[..., list[Run]]) -> None:
    """An interrupted plan."""
    line = waiting(runs(0, 0))
    first = line.take()
    assert first
    line.stop()
    assert line.take() is None
    assert line.next_compatible(*first) is None


def test_one_run_at_a_time_where_memory_is_short(runs: Callable[..., list[Run]]) -> None:
    """No worker goes on beside another one; the last one does, or nothing would ever end."""
    made = runs(0, 0, 0)
    line = waiting(made, room=0)
    first, second = line.take(), line.take()
    assert first and second
    line._headroom = 2 * memory.total()
    assert line.next_compatible(*first) is None
    line.release(first[1])
    assert line.next_compatible(*second) == made[2]


def test_only_a_run_without_gpus_goes_by_one_that_waits_for_others(
    runs: Callable[..., list[Run]],
) -> None:
    """A small one that did would keep the big one waiting for ever."""
    made = runs(4, 1, 0)
    others = leases.GpuPool(GPUS)
    lease = others.lease(GPUS[:1])
    assert lease
    line = waiting(made)
    first = line.take()
    assert first
    assert first[0] == made[2]
    lease.close()
    second = line.take()
    assert second
    assert second[0] == made[0]


def test_a_worker_gives_its_gpus_to_who_waits_for_them(runs: Callable[..., list[Run]]) -> None:
    """Another invocation is next; without GPUs, a worker goes on."""
    made = runs(1, 1, 1)
    line = waiting(made, gpus=1)
    first = line.take()
    assert first
    assert line.next_compatible(*first) == made[1]
    others = leases.GpuPool(GPUS[:1])
    assert others.lease(GPUS[:1]) is None
    assert line.next_compatible(*first) is None
    line.release(first[1])
    assert others.lease(GPUS[:1])


def test_a_run_that_wants_more_than_there_is_is_refused(runs: Callable[..., list[Run]]) -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="needs GPUs that are not among those to lease"):
        waiting(runs(2), gpus=1)


def test_a_wait_for_others_is_told_once(runs: Callable[..., list[Run]]) -> None:
    """Of the run that waits; it is not told that it waits for our own."""
    made = runs(4, 4)
    others = leases.GpuPool(GPUS)
    assert others.lease(GPUS[:1])
    line = waiting(made)
    assert line.newly_blocked() is None
    for _ in range(2):
        assert line._lease() is None
    assert [line.newly_blocked(), line.newly_blocked()] == [made[0], None]
