"""`--detach`: runs that tasks of job arrays execute while no command is there to wait for them.

The next command collects what has ended. A run belongs to a command whose plan has a run with the
same execution key. Slurm only says whether a task is still there.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from ci.errors import CourseError, MachineError
from ci.execute import cluster, engine, server_client
from ci.execute.batch import ENDS, Batch, Entry
from ci.execute.events import (
    CellStarted,
    Event,
    Execution,
    Finished,
    Started,
    Submitted,
    Waiting,
)
from ci.execute.executor import Executor, NodeLostError
from ci.execute.slurm import SlurmExecutor, plain, raise_for
from ci.machine import atomic
from ci.machine.program import answer, ask
from ci.plan import attempts
from ci.plan.planner import Run
from ci.plan.run_cache import DETACHED, RUNS, Work

POLL_S = 1.0
NO_SLOT = -1  # in the events of runs that no slot of this command executes
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
    keyed = {execution_key(run)[:KEY_LENGTH]: run for run in runs}
    found = Detached(build, executor, keyed)
    found.forget({execution_key(each.run)[:KEY_LENGTH] for each in (*work.unchanged, *work.judge)})
    others = {key: run for key, run in keyed.items() if key not in found.keys}
    if detach:
        found.submit(others, slots)
    yield from found.look()
    if detach:
        yield from found.outstanding()
        return
    if others:
        yield from engine.execute([*others.values()], build / RUNS, executor, slots=slots)
    while found.keys:
        yield from found.look()
        time.sleep(POLL_S)


class Detached:
    """The detached runs of a plan; `keys` are those that have not ended yet."""

    def __init__(self, build: Path, executor: SlurmExecutor, runs: Mapping[str, Run]) -> None:
        self._build, self._executor, self._runs = build, executor, runs
        self._batches = _batches(build)
        self._tasks: Mapping[str, cluster.Task] = {}
        self._told: dict[str, object] = {}
        self._start = time.monotonic()
        entries = [entry for batch in self._batches for entry in batch.entries()]
        self.keys = {entry.key for entry in entries} & runs.keys()

    def forget(self, keys: set[str]) -> None:
        """Remove runs that were collected by a command that was killed before it removed them."""
        for batch in self._batches:
            for entry in batch.entries():
                if entry.key in keys:
                    batch.drop(entry)

    def submit(self, runs: Mapping[str, Run], slots: int) -> None:
        """Let job arrays execute `runs`, each with up to `slots` tasks at once."""
        kinds: dict[object, dict[str, Run]] = {}
        for key, run in runs.items():
            kind = run.parameters.get("world_size"), run.threads, len(run.gpus)
            kinds.setdefault(kind, {})[key] = run
        for keyed in kinds.values():
            batch = self._create(keyed, slots)
            self._batches.append(batch)
            self.keys |= keyed.keys()
            self._submit(batch, len(keyed))

    def _create(self, keyed: Mapping[str, Run], slots: int) -> Batch:
        runs = [*keyed.values()]
        about = {
            "options": self._executor.options(runs),
            "variables": runs[0].environment,
            "longest_s": max(run.timeout_s for run in runs),
            "tasks": slots,
        }
        requests = {key: server_client.request(run, self._executor) for key, run in keyed.items()}
        folder = self._build / DETACHED / attempts.stamp()
        return Batch.create(folder, requests, about)

    def _submit(self, batch: Batch, waiting: int) -> None:
        """Submit an array; a smaller one if the cluster or its quality of service refuses it."""
        about = batch.about
        command = [
            sys.executable,
            "-P",
            "-m",
            "ci.execute.array_task",
            str(batch.folder.absolute()),
        ]
        words = ["sbatch", "--parsable", "--no-requeue", "--job-name=pytorch-course", "--nodes=1"]
        words += ["--ntasks=1", f"--output={batch.log('%A_%a').absolute()}", *about["options"]]
        count = min(about["tasks"], waiting, cluster.largest_array())
        while True:
            done = ask(*words, f"--array=0-{count - 1}", f"--wrap=exec {shlex.join(command)}")
            if done.returncode == 0:
                return batch.add_job(done.stdout.strip().partition(";")[0])
            fault = plain((done.stderr.strip().splitlines() or ["sbatch failed"])[0])
            if count == 1 or "contact" in fault:
                raise MachineError(f"--detach: {fault}: the same command tries again")
            count //= 2

    def look(self) -> Iterator[Event]:
        """What has happened since the last look. An answer of Slurm is older than the events."""
        tasks = cluster.tasks()
        self._tasks = tasks or self._tasks
        for batch in self._batches:
            batch.read_events()
            for entry in self._entries(batch):
                yield from self._claimed(batch, entry, tasks) if entry.task else ()
            waiting = [entry for entry in self._entries(batch) if not entry.task]
            if waiting and tasks is not None and not any(_is_of(batch, task) for task in tasks):
                yield from self._without_tasks(batch, waiting)
            if not batch.entries():
                self._remove(batch)

    def _entries(self, batch: Batch) -> list[Entry]:
        return [entry for entry in batch.entries() if entry.key in self._runs]

    def _claimed(
        self, batch: Batch, entry: Entry, tasks: Mapping[str, cluster.Task] | None
    ) -> Iterator[Event]:
        run, message = self._runs[entry.key], batch.last.get(entry.name, {})
        if message.get("event") in ENDS:
            yield from self._collect(batch, entry)
        elif tasks is not None and entry.task not in tasks:
            yield from self._lost(batch, entry)
        elif message and self._told.get(entry.name) != message:
            if entry.name not in self._told:
                job = batch.environments[entry.task].get("Slurm job", "")
                yield Started(run, NO_SLOT, self._elapsed(), run.gpus, job)
            if message["event"] == "cell":
                yield CellStarted(run, message["cell"], message["cells"])
            self._told[entry.name] = message

    def _collect(self, batch: Batch, entry: Entry) -> Iterator[Event]:
        run, message = self._runs[entry.key], batch.last[entry.name]
        attempt = attempts.begin(run, self._build / RUNS)
        shutil.copytree(batch.attempt(entry), attempt, dirs_exist_ok=True, symlinks=True)
        try:
            if message["event"] == "lost":
                raise CourseError(f"its process {message['ending']}")
            environment = batch.environments[entry.task]
            server_client.require_cuda(run, environment)
            found = server_client.ended(run, attempt, message, environment)
        except CourseError as error:
            found = engine.failure(run, attempt, error)
        yield from self._finish(batch, entry, found)

    def _lost(self, batch: Batch, entry: Entry) -> Iterator[Event]:
        """A task has gone without telling how its run has ended."""
        job, state = f"Slurm job {entry.task}", cluster.state(entry.task)
        try:
            raise_for(state, job, batch.about["options"])
            if state:
                raise MachineError(f"{job} ended ({state}): see {batch.log(entry.task)}")
            raise NodeLostError(f"{job} is gone, and Slurm no longer knows why")
        except NodeLostError as error:
            if entry.losses:
                yield from self._fail(batch, entry, error)
                return
            batch.put_back(entry)
            yield Waiting(self._runs[entry.key], f"to execute again: {error}")
        except MachineError as error:
            yield from self._fail(batch, entry, error)

    def _without_tasks(self, batch: Batch, waiting: Sequence[Entry]) -> Iterator[Event]:
        """Submit another array for what waits, unless the last one executed nothing."""
        job = batch.jobs[-1] if batch.jobs else ""
        if job and cluster.state(job).startswith("CANCELLED"):
            fault = MachineError(f"Slurm job {job} was cancelled")
        elif job and job not in batch.working:
            logs = batch.log(f"{job}_*")
            fault = MachineError(f"Slurm job {job} has ended and executed nothing: see {logs}")
        else:
            self._submit(batch, len(waiting))
            return
        for entry in waiting:
            yield from self._fail(batch, entry, fault)

    def _fail(self, batch: Batch, entry: Entry, fault: MachineError) -> Iterator[Event]:
        run = self._runs[entry.key]
        attempt = attempts.begin(run, self._build / RUNS)
        yield from self._finish(batch, entry, engine.failure(run, attempt, fault))

    def _finish(self, batch: Batch, entry: Entry, execution: Execution) -> Iterator[Event]:
        yield Finished(execution, NO_SLOT, self._elapsed(), execution.run.gpus)
        batch.drop(entry)  # not before the result is kept
        self.keys.discard(entry.key)

    def outstanding(self) -> Iterator[Event]:
        """Where each run is that has not ended."""
        for batch in self._batches:
            for entry in self._entries(batch):
                yield Submitted(self._runs[entry.key], self._place(batch, entry))

    def _place(self, batch: Batch, entry: Entry) -> str:
        if not entry.task:
            tasks = [each for task, each in self._tasks.items() if _is_of(batch, task)]
            reasons = {each.reason for each in tasks if not each.node} - {"None"}
            return ": ".join((f"queued in Slurm job {batch.jobs[-1]}", *sorted(reasons)[:1]))
        node = self._tasks[entry.task].node if entry.task in self._tasks else "an unknown node"
        message = batch.last.get(entry.name, {})
        cell = f", cell {message['cell'] + 1}/{message['cells']}" if "cell" in message else ""
        return f"runs on {node}, Slurm job {entry.task}{cell}"

    def _remove(self, batch: Batch) -> None:
        """Remove a batch without runs, and cancel its tasks that have not started."""
        if batch.jobs and any(_is_of(batch, task) for task in self._tasks):
            answer("scancel", *batch.jobs)
        atomic.remove(batch.folder)

    def _elapsed(self) -> float:
        return time.monotonic() - self._start


def _batches(build: Path) -> list[Batch]:
    folders = (build / DETACHED).glob("*/")
    return [Batch(folder) for folder in sorted(folders) if not folder.name.startswith(".")]


def _is_of(batch: Batch, task: str) -> bool:
    return task.partition("_")[0] in batch.jobs
