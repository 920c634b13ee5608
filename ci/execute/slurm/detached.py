"""`--detach`: runs that tasks of job arrays execute while no command is there to wait for them.

The next command collects what has ended. A run belongs to a command whose plan has a run with the
same execution key. Slurm only says whether a task is still there.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from ci.execute import engine, server_client
from ci.execute.events import Event
from ci.execute.executor import Executor
from ci.execute.slurm import cluster
from ci.execute.slurm.batch import Batch
from ci.execute.slurm.collector import Collector
from ci.execute.slurm.executor import SlurmExecutor
from ci.machine import atomic
from ci.machine.program import SilentError, answer
from ci.plan import attempts
from ci.plan.planner import Run
from ci.plan.run_cache import DETACHED, RUNS, Work

POLL_S = 1.0
KEY_LENGTH = 32  # of the execution key


def jobs(build: Path) -> list[str]:
    """The ids of the job arrays that may still execute runs."""
    return [job for batch in _batches(build) if batch.entries() for job in batch.jobs[-1:]]


def clean(build: Path) -> None:
    """Cancel all detached runs, and remove what was not collected."""
    if found := jobs(build):
        answer("scancel", *found)
    atomic.remove(build / DETACHED)


def execute(
    runs: Sequence[Run],
    work: Work,
    execution_key: Callable[[Run], str],
    build: Path,
    executor: Executor,
    *,
    slots: int,
    detach: bool,
) -> Generator[Event, None, None]:
    """Collect detached runs, and execute the others; with `detach`, submit them and do not wait."""
    assert isinstance(executor, SlurmExecutor)

    def key(run: Run) -> str:
        return execution_key(run)[:KEY_LENGTH]

    batches, keyed = _batches(build), {key(run): run for run in runs}
    _forget(batches, {key(previous.run) for previous in (*work.unchanged, *work.judge)})
    submitted = {entry.key for batch in batches for entry in batch.entries()}
    others = {name: run for name, run in keyed.items() if name not in submitted}
    if detach:
        batches += _new_batches(others, build / DETACHED, executor, slots)
    collectors = [Collector(batch, keyed, build / RUNS) for batch in batches]
    if detach:
        tasks = cluster.tasks()
        for each in collectors:
            yield from each.look(tasks)
            yield from each.outstanding(tasks)
        return
    yield from _look(collectors)
    if others:
        yield from engine.execute([*others.values()], build / RUNS, executor, slots=slots)
    while any(each.entries() for each in collectors):
        time.sleep(POLL_S)
        yield from _look(collectors)


def _look(collectors: Sequence[Collector]) -> Iterator[Event]:
    """What has happened; all or a part of it only the next time if the controller is silent."""
    with contextlib.suppress(SilentError):
        tasks = cluster.tasks()
        for each in collectors:
            yield from each.look(tasks)


def _batches(build: Path) -> list[Batch]:
    folders = (build / DETACHED).glob("*/")
    return [Batch(folder) for folder in sorted(folders) if not folder.name.startswith(".")]


def _new_batches(
    runs: Mapping[str, Run], folder: Path, executor: SlurmExecutor, slots: int
) -> Iterator[Batch]:
    """A batch for each kind of job, with up to `slots` tasks at once."""
    kinds: dict[object, dict[str, Run]] = {}
    for key, run in runs.items():
        kind = run.parameters.get("world_size"), run.threads, len(run.gpus)
        kinds.setdefault(kind, {})[key] = run
    for keyed in kinds.values():
        alike = [*keyed.values()]
        about = {
            "options": executor.options(alike),
            "variables": alike[0].environment,
            "longest_s": max(run.timeout_s for run in alike),
            "tasks": slots,
        }
        requests = {key: server_client.request(run, executor) for key, run in keyed.items()}
        yield Batch.create(folder / attempts.stamp(), requests, about)


def _forget(batches: Sequence[Batch], keys: set[str]) -> None:
    """Remove runs that were collected by a command that was killed before it removed them."""
    for batch in batches:
        for entry in batch.entries():
            if entry.key in keys:
                batch.drop(entry)
