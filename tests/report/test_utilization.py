"""The utilization of slots."""

from pathlib import Path

from ci.execute.events import CellStarted, End, Execution, Finished, Started
from ci.plan import planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.report.utilization import slot_utilization
from tests.conftest import Read


def finished(run: Run, slot: int, at_s: float, *gpus: Gpu) -> Finished:
    """The event at the end of a run in a slot."""
    return Finished(Execution(run, Path(), End.COMPLETED), slot, at_s, gpus)


def test_a_slot_is_busy_while_it_has_a_run(read: Read) -> None:
    """Its share is relative to the time until all runs have ended."""
    run = planner.Run(read(), {})
    first, second = slot_utilization(
        [
            *(Started(run, 0, 0), Started(run, 1, 0), CellStarted(run, 0, 1)),
            *(finished(run, 1, 2), Started(run, 1, 3), finished(run, 1, 4)),
            finished(run, 0, 10),
        ],
        2,
    )
    assert (first.runs, first.busy_s, first.share) == (1, 10, 1)
    assert (second.runs, second.busy_s, second.share) == (2, 3, 0.3)


def test_a_start_on_a_lost_node_is_no_use_of_a_slot(read: Read) -> None:
    """The run starts again, in this slot or another."""
    run = planner.Run(read(), {})
    events = [Started(run, 0, 0), Started(run, 0, 4), finished(run, 0, 5)]
    assert slot_utilization(events, 1)[0].busy_s == 1


def test_a_slot_names_its_gpus(read: Read) -> None:
    """All GPUs that its runs have leased, in order."""
    run, gpus = planner.Run(read(), {}), [Gpu(str(i), f"GPU-{i}", "H100") for i in (10, 9)]
    events = [finished(run, 0, 1, gpu) for gpu in gpus]
    assert slot_utilization(events, 1)[0].gpus == ("9", "10")


def test_a_plan_without_executions_has_no_slots() -> None:
    """All runs were unchanged."""
    assert slot_utilization([], 2) == []


def test_a_slot_without_a_run_is_listed(read: Read) -> None:
    """Its share is zero."""
    events = [finished(planner.Run(read(), {}), 0, 1)]
    assert [slot.share for slot in slot_utilization(events, 2)] == [1, 0]
