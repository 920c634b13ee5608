"""In which order runs begin, and which is next: the longest first, small ones beside big ones."""

import heapq
import itertools
from collections.abc import Callable, Sequence

from ci.execute.leases import pick
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

CELL_S = 0.1  # what a code cell is taken to last in a lesson that never ran


def order(
    runs: Sequence[Run],
    seconds: Callable[[Run], float | None],
    *,
    slots: int,
    gpus: Sequence[Gpu] = (),
) -> list[Run]:
    """`runs` in the order in which they are to begin, as soon as there is room for each.

    `seconds(run)` is how long it took before, None where that is not known. Longest first is best
    where each wants one slot; with leases of several sizes it may be the widest first, or those
    that take most of both: whichever ends first, by what is known.
    """
    took = {id(run): seconds(run) or CELL_S * _code_cells(run) for run in runs}
    ranks: list[Callable[[Run], object]] = [
        lambda run: took[id(run)],
        lambda run: (len(run.gpus), took[id(run)]),
        lambda run: took[id(run)] * len(run.gpus),
    ]
    orders = [sorted(runs, key=rank, reverse=True) for rank in ranks]  # type: ignore[arg-type]

    def lasts(ordered: Sequence[Run]) -> float:
        return makespan(ordered, lambda run: took[id(run)], slots=slots, gpus=gpus)

    return min(orders, key=lasts)


def following(waiting: Sequence[Run], free: Sequence[Gpu]) -> int | None:
    """The place in `waiting` of the first run that the free GPUs are enough for."""
    return next((i for i, run in enumerate(waiting) if pick(run.gpus, free) is not None), None)


def makespan(
    runs: Sequence[Run],
    seconds: Callable[[Run], float],
    *,
    slots: int,
    gpus: Sequence[Gpu] = (),
) -> float:
    """When the last of `runs` ends, in seconds, if they begin in this order and last that long."""
    now, waiting, free = 0.0, list(runs), list(gpus)
    going: list[tuple[float, int, tuple[Gpu, ...]]] = []  # by their ends
    number = itertools.count()
    while waiting or going:
        while len(going) < slots and (place := following(waiting, free)) is not None:
            run = waiting.pop(place)
            lease = pick(run.gpus, free) or ()
            free = [gpu for gpu in free if gpu not in lease]
            heapq.heappush(going, (now + seconds(run), next(number), lease))
        now, _, lease = heapq.heappop(going)
        free += lease
    return now


def _code_cells(run: Run) -> int:
    return sum(cell.cell_type == "code" for cell in run.lesson.notebook.cells)
