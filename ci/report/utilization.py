"""How well the slots of a plan were used."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from ci.execute.events import NO_SLOT, Event, Finished, Started


@dataclass(frozen=True)
class Utilization:
    """What a slot did: it had `runs` runs for `busy_s` of `total_s` seconds, on these GPUs."""

    slot: int
    runs: int
    busy_s: float
    total_s: float
    gpus: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of the time in which it had a run."""
        return self.busy_s / self.total_s if self.total_s else 0.0


def slot_utilization(events: Iterable[Event], slots: int) -> list[Utilization]:
    """The utilization of each slot, from the starts and ends of runs; empty without runs."""
    bounds = [
        event for event in events if isinstance(event, Started | Finished) and event.slot != NO_SLOT
    ]
    total_s = max((event.at_s for event in bounds), default=0.0)
    found = []
    for slot in range(slots if bounds else 0):
        own = [event for event in bounds if event.slot == slot]
        ends = [event for event in own if isinstance(event, Finished)]
        starts = [  # without those on nodes that were lost
            one for one, then in itertools.pairwise(own) if isinstance(then, Finished)
        ]
        busy_s = sum(event.at_s for event in ends) - sum(event.at_s for event in starts)
        gpus = sorted({gpu.index for event in own for gpu in event.gpus}, key=int)
        found.append(Utilization(slot, len(ends), busy_s, total_s, tuple(gpus)))
    return found
