"""In which order runs begin."""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from ci.lesson.lesson import Lesson
from ci.plan import planner, schedule
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from tests.conftest import Read

GPUS = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(8)]


def runs(lesson: Lesson, *sizes: int) -> list[Run]:
    """Runs on as many GPUs each."""
    return [
        replace(planner.Run(lesson, {"size": i}), gpus=(*GPUS[:n],)) for i, n in enumerate(sizes)
    ]


def lasting(*seconds: float) -> Callable[[Run], float]:
    """Each run lasts as long as stands at its number."""
    return lambda run: seconds[int(run.parameters["size"])]


def numbers(ordered: Sequence[Run]) -> list[int]:
    """The numbers of runs."""
    return [int(run.parameters["size"]) for run in ordered]


def makespan(
    runs: Sequence[Run], seconds: Callable[[Run], float], *, slots: int, gpus: Sequence[Gpu] = ()
) -> float:
    """When the last of `runs` ends, in seconds, if they start in this order."""
    now, waiting, free = 0.0, list(runs), list(gpus)
    running: list[tuple[float, int, tuple[Gpu, ...]]] = []  # by their ends
    number = itertools.count()
    while waiting or running:
        while len(running) < slots and (i := schedule.first_fitting(waiting, free)) is not None:
            run = waiting.pop(i)
            lease = schedule.pick(run.gpus, free) or ()
            free = [gpu for gpu in free if gpu not in lease]
            heapq.heappush(running, (now + seconds(run), next(number), lease))
        now, _, lease = heapq.heappop(running)
        free += lease
    return now


def least(
    runs: Sequence[Run], seconds: Callable[[Run], float], *, slots: int, gpus: Sequence[Gpu] = ()
) -> float:
    """What no order can be quicker than, in seconds: all work spread evenly, or the longest run."""
    work = sum(seconds(run) for run in runs) / slots
    leased = sum(seconds(run) * len(run.gpus) for run in runs) / max(1, len(gpus))
    return max(work, leased, *map(seconds, runs))


def test_the_longest_begins_first(read: Read) -> None:
    """By what each took before."""
    made = runs(read(), 0, 0, 0)
    assert numbers(schedule.order(made, lasting(1, 3, 2))) == [1, 2, 0]


def test_a_run_that_is_not_known_counts_by_its_cells(read: Read) -> None:
    """A course that never ran begins with its longest script."""
    short, long = read(), read("# %%\nsize\n" * 9, name="02_long")
    ordered = schedule.order([planner.Run(short, {}), planner.Run(long, {})], lambda run: None)
    assert [run.lesson.name for run in ordered] == ["02_long", "01_small"]


def test_small_runs_go_beside_big_ones(read: Read) -> None:
    """On eight GPUs: six, and beside it two of one; not one after the other."""
    made = runs(read(), 1, 6, 1)
    took = lasting(2, 4, 2)
    ordered = schedule.order(made, took)
    assert makespan(ordered, took, slots=8, gpus=GPUS) == 4


def test_what_fits_begins_where_the_first_does_not(read: Read) -> None:
    """The place of the first run that the free GPUs are enough for; None where none is."""
    made = runs(read(), 4, 2, 1)
    assert schedule.first_fitting(made, GPUS[:2]) == 1
    assert schedule.first_fitting(made, []) is None


@pytest.mark.parametrize("widths", [[1], [1, 1, 2], [1, 2, 4]], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_runs_on_eight_gpus_end_near_the_bound(
    read: Read, widths: list[int], seed: int
) -> None:
    """Planned by recorded durations: at most 5 % above what no order can undercut."""
    draw = random.Random(seed)
    seconds = [draw.lognormvariate(1, 1) for _ in range(200)]
    made = runs(read(), *(draw.choice(widths) for _ in seconds))
    took = lasting(*seconds)
    ordered = schedule.order(made, took)
    bound = least(made, took, slots=8, gpus=GPUS)
    assert bound <= makespan(ordered, took, slots=8, gpus=GPUS) <= 1.05 * bound


def test_no_order_is_quicker_than_its_longest_run(read: Read) -> None:
    """However many slots there are."""
    made = runs(read(), 0, 0)
    assert least(made, lasting(9, 1), slots=8) == 9
    assert makespan(made, lasting(9, 1), slots=8) == 9
