"""The order in which runs start."""

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
    """Runs that need these numbers of GPUs."""
    return [
        replace(planner.Run(lesson, {"size": i}), gpus=(*GPUS[:n],)) for i, n in enumerate(sizes)
    ]


def durations(*seconds: float) -> Callable[[Run], float]:
    """A function from each run to its duration in seconds."""
    return lambda run: seconds[int(run.parameters["size"])]


def indices(ordered: Sequence[Run]) -> list[int]:
    """The indices of runs in their original order."""
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


def lower_bound(
    runs: Sequence[Run], seconds: Callable[[Run], float], *, slots: int, gpus: Sequence[Gpu] = ()
) -> float:
    """A lower bound for the makespan of any order: the mean load, or the longest run."""
    work = sum(seconds(run) for run in runs) / slots
    leased = sum(seconds(run) * len(run.gpus) for run in runs) / max(1, len(gpus))
    return max(work, leased, *map(seconds, runs))


def test_the_longest_run_starts_first(read: Read) -> None:
    """By its last recorded duration."""
    planned = runs(read(), 0, 0, 0)
    assert indices(schedule.order(planned, durations(1, 3, 2))) == [1, 2, 0]


def test_an_unknown_duration_is_estimated_from_the_number_of_cells(read: Read) -> None:
    """A course that never ran starts with its longest script."""
    short, long = read(), read("# %%\nsize\n" * 9, name="02_long")
    ordered = schedule.order([planner.Run(short, {}), planner.Run(long, {})], lambda run: None)
    assert [run.lesson.name for run in ordered] == ["02_long", "01_small"]


def test_small_runs_execute_beside_large_ones(read: Read) -> None:
    """On eight GPUs, a run with six and two runs with one execute in parallel."""
    planned = runs(read(), 1, 6, 1)
    seconds_of = durations(2, 4, 2)
    ordered = schedule.order(planned, seconds_of)
    assert makespan(ordered, seconds_of, slots=8, gpus=GPUS) == 4


def test_the_first_fitting_run_starts(read: Read) -> None:
    """Its index is returned, or None if no run fits the free GPUs."""
    planned = runs(read(), 4, 2, 1)
    assert schedule.first_fitting(planned, GPUS[:2]) == 1
    assert schedule.first_fitting(planned, []) is None


@pytest.mark.parametrize("widths", [[1], [1, 1, 2], [1, 2, 4]], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_runs_on_eight_gpus_end_near_the_bound(
    read: Read, widths: list[int], seed: int
) -> None:
    """With recorded durations, the makespan is at most 5 % above the lower bound."""
    draw = random.Random(seed)
    seconds = [draw.lognormvariate(1, 1) for _ in range(200)]
    planned = runs(read(), *(draw.choice(widths) for _ in seconds))
    seconds_of = durations(*seconds)
    ordered = schedule.order(planned, seconds_of)
    bound = lower_bound(planned, seconds_of, slots=8, gpus=GPUS)
    assert bound <= makespan(ordered, seconds_of, slots=8, gpus=GPUS) <= 1.05 * bound


def test_the_longest_run_is_a_lower_bound(read: Read) -> None:
    """Even if there are more slots than runs."""
    planned = runs(read(), 0, 0)
    assert lower_bound(planned, durations(9, 1), slots=8) == 9
    assert makespan(planned, durations(9, 1), slots=8) == 9
