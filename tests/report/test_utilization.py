"""How well slots were used."""

from pathlib import Path

from ci.execute.engine import Event
from ci.plan import planner
from ci.plan.gpus import Gpu
from ci.report import utilization
from tests.conftest import Read


def test_a_slot_is_busy_while_it_has_a_run(read: Read) -> None:
    """From each start to its end, of the time until all have ended."""
    run = planner.Run(read(), {})

    def event(kind: str, slot: int, when: float) -> Event:
        return Event(kind, run, Path(), slot=slot, when=when)

    told = [
        *(event("started", 0, 0), event("started", 1, 0), event("cell", 1, 1)),
        *(event("ended", 1, 2), event("started", 1, 3), event("ended", 1, 4)),
        event("ended", 0, 10),
    ]
    first, second = utilization.of(told, 2)
    assert (first.runs, first.busy_s, first.share) == (1, 10, 1)
    assert (second.runs, second.busy_s, second.share) == (2, 3, 0.3)


def test_a_slot_names_its_gpus(read: Read) -> None:
    """All that its runs have leased."""
    run, gpus = planner.Run(read(), {}), [Gpu(str(i), f"GPU-{i}", "H100") for i in (10, 9)]
    told = [Event("ended", run, Path(), gpus=(gpu,), when=1) for gpu in gpus]
    assert utilization.of(told, 1)[0].gpus == ("9", "10")


def test_a_plan_without_a_run_used_none() -> None:
    """All was unchanged."""
    assert utilization.of([], 2) == []


def test_a_slot_without_a_run_was_idle(read: Read) -> None:
    """It is there all the same."""
    told = [Event("ended", planner.Run(read(), {}), Path(), when=1)]
    assert [use.share for use in utilization.of(told, 2)] == [1, 0]
