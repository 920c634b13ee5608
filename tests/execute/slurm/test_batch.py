"""Runs that tasks of job arrays claim from a shared folder."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ci.execute.slurm import detached
from ci.execute.slurm.batch import EVENTS, Batch, Messages
from ci.plan.run_cache import DETACHED


def create(folder: Path, runs: int) -> Batch:
    """A batch with as many runs."""
    requests = {f"key{number}": {"timeout_s": number} for number in range(runs)}
    return Batch.create(folder / "batch", requests, {"tasks": 2})


def append(batch: Batch, task: str, text: str) -> None:
    """Let a task append to its events."""
    with (batch.folder / EVENTS / task).open("a") as events:
        events.write(text)


def line(run: str, **details: Any) -> str:
    """An event about a run."""
    return json.dumps({"event": "cell", "run": run, **details}) + "\n"


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """A batch of two runs."""
    return create(tmp_path, 2)


def test_no_two_tasks_claim_the_same_run(tmp_path: Path) -> None:
    """If four claim at the same time, each run is claimed exactly once."""
    batch = create(tmp_path, 200)

    def claim(task: int) -> list[Mapping[str, Any]]:
        return [*Batch(batch.folder).claims(f"12_{task}")]

    with ThreadPoolExecutor(4) as pool:
        claimed = [each for found in pool.map(claim, range(4)) for each in found]
    assert sorted(each["timeout_s"] for each in claimed) == [*range(200)]


def test_a_claimed_run_has_an_attempt_of_its_task(batch: Batch) -> None:
    """So that a task that was lost cannot write to the attempt of the next one."""
    request = next(batch.claims("12_3"))
    assert Path(request["attempt"]).is_dir()
    assert request["attempt"].endswith("@12_3")


def test_runs_are_claimed_in_order(batch: Batch) -> None:
    """The one with the most expected GPU-seconds is the first."""
    assert [request["timeout_s"] for request in batch.claims("12_0")] == [0, 1]


def test_a_run_that_is_put_back_is_claimed_again(batch: Batch) -> None:
    """It is known that it was lost once."""
    [*batch.claims("12_0")]
    batch.put_back(batch.entries()[0])
    (again,) = Batch(batch.folder).claims("12_1")
    assert again["run"] == "000000-key0-1@12_1"


def test_an_unfinished_line_is_read_later(batch: Batch) -> None:
    """As a whole."""
    text, messages = line("a", cell=3), Messages(batch)
    append(batch, "12_0", text[:9])
    messages.read()
    assert messages.last == {}
    append(batch, "12_0", text[9:])
    messages.read()
    assert messages.last["a"]["cell"] == 3


def test_each_event_is_read_once(batch: Batch) -> None:
    """A file of events grows with the number of its task's runs."""
    messages = Messages(batch)
    append(batch, "12_0", line("a"))
    messages.read()
    messages.last.clear()
    append(batch, "12_0", line("b"))
    messages.read()
    assert messages.last.keys() == {"b"}


def test_a_run_that_is_dropped_leaves_nothing(batch: Batch) -> None:
    """Neither its request nor its attempt."""
    [*batch.claims("12_0")]
    for entry in batch.entries():
        batch.drop(entry)
    left = {path.name for path in batch.folder.rglob("*") if path.is_file()}
    assert left == {"batch.json"}
    assert batch.entries() == []


def test_a_batch_that_is_incomplete_is_not_seen(tmp_path: Path) -> None:
    """Its command was killed while it wrote the requests."""
    batch = create(tmp_path / DETACHED, 1)
    batch.add_job("12")
    assert detached.jobs(tmp_path) == ["12"]
    batch.folder.rename(batch.folder.with_name(".batch"))
    assert detached.jobs(tmp_path) == []
