"""How well the slots of a plan were used: how long each had a run, of the time that all took."""

from collections.abc import Iterable
from dataclasses import dataclass

from ci.execute.engine import Event


@dataclass(frozen=True)
class Use:
    """What a slot did: how many runs, for how many of `of_s` seconds, on which GPUs."""

    slot: int
    runs: int
    busy_s: float
    of_s: float
    gpus: tuple[str, ...]

    @property
    def share(self) -> float:
        """How much of the time it had a run."""
        return self.busy_s / self.of_s if self.of_s else 0.0


def of(events: Iterable[Event], slots: int) -> list[Use]:
    """The use of each slot, from when runs started and ended; none where there were no runs."""
    told = [event for event in events if event.kind in ("started", "ended")]
    of_s = max((event.when for event in told), default=0.0)
    uses = []
    for slot in range(slots if told else 0):
        mine = [event for event in told if event.slot == slot]
        ends = [event for event in mine if event.kind == "ended"]
        busy_s = sum(event.when if event.kind == "ended" else -event.when for event in mine)
        gpus = sorted({gpu.index for event in mine for gpu in event.gpus}, key=int)
        uses.append(Use(slot, len(ends), busy_s, of_s, tuple(gpus)))
    return uses
