"""What happens to the runs of a batch, which job arrays execute, also while nobody looks."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ci.errors import CourseError, MachineError
from ci.execute import engine, server_client
from ci.execute.events import (
    NO_SLOT,
    CellStarted,
    Event,
    Execution,
    Finished,
    Started,
    Submitted,
    Waiting,
)
from ci.execute.executor import NodeLostError
from ci.execute.slurm import cluster
from ci.execute.slurm.batch import ENDS, Batch, Entry, Message, Messages
from ci.execute.slurm.cluster import Task
from ci.execute.slurm.job import JOB_NAME, ONE_TASK, SILENT, explain, plain
from ci.machine import atomic
from ci.machine.program import SilentError, answer, ask
from ci.plan import attempts
from ci.plan.planner import Run

SBATCH = ("sbatch", "--parsable", "--no-requeue", JOB_NAME, *ONE_TASK)
TASK = (sys.executable, "-P", "-m", "ci.execute.slurm.array_task")

Tasks = Mapping[str, Task]  # by id, as Slurm lists them


class Collector:
    """Collects the runs of a batch that this command has to execute too, by their keys."""

    def __init__(self, batch: Batch, runs: Mapping[str, Run], folder: Path) -> None:
        """New attempts are below `folder`."""
        self._batch, self._runs, self._folder = batch, runs, folder
        self._messages = Messages(batch)

    def entries(self) -> list[Entry]:
        """The runs that are not collected yet."""
        return [entry for entry in self._batch.entries() if entry.key in self._runs]

    def look(self, tasks: Tasks) -> Iterator[Event]:
        """What has happened since the last look. Slurm listed `tasks` before.

        Raises SilentError where only the controller could say more.
        """
        before = dict(self._messages.last)
        self._messages.read()
        for entry in self.entries():
            message = self._messages.last.get(entry.name)
            if message and message["event"] in ENDS:
                yield from self._finish(entry, self._result(entry, message))
            elif entry.task and entry.task not in tasks:
                yield from self._on_lost_task(entry)
            elif message and message != before.get(entry.name):
                yield from self._progress(entry, message, is_first=entry.name not in before)
        is_served = any(self._is_own(task) for task in tasks)
        waiting = [entry for entry in self.entries() if not entry.task]
        if waiting and not is_served:
            yield from self._on_lost_array(waiting)
        if not self._batch.entries():
            if is_served:  # by tasks that have not started, or are about to end
                answer("scancel", *self._batch.jobs)
            atomic.remove(self._batch.folder)

    def outstanding(self, tasks: Tasks) -> Iterator[Event]:
        """Where each run is that has not ended."""
        for entry in self.entries():
            place = self._place(entry, tasks) if entry.task else self._queue(tasks)
            yield Submitted(self._runs[entry.key], place)

    def _place(self, entry: Entry, tasks: Tasks) -> str:
        node = tasks[entry.task].node if entry.task in tasks else "an unknown node"
        message = self._messages.last.get(entry.name, {})
        cell = f", cell {message['cell'] + 1}/{message['cells']}" if "cell" in message else ""
        return f"runs on {node}, Slurm job {entry.task}{cell}"

    def _queue(self, tasks: Tasks) -> str:
        own = [task for name, task in tasks.items() if self._is_own(name) and not task.node]
        reasons = {task.reason for task in own} - {"None"}
        return ": ".join((f"queued in Slurm job {self._batch.jobs[-1]}", *sorted(reasons)[:1]))

    def _is_own(self, task: str) -> bool:
        return task.partition("_")[0] in self._batch.jobs

    def _progress(self, entry: Entry, message: Message, *, is_first: bool) -> Iterator[Event]:
        run = self._runs[entry.key]
        if is_first:
            job = self._messages.environments[entry.task].get("Slurm job", "")
            yield Started(run, NO_SLOT, 0.0, run.gpus, job)
        if message["event"] == "cell":
            yield CellStarted(run, message["cell"], message["cells"])

    def _result(self, entry: Entry, message: Message) -> Execution:
        """The execution of which a task has told the end."""
        run, environment = self._runs[entry.key], self._messages.environments[entry.task]
        attempt = attempts.begin(run, self._folder)
        shutil.copytree(self._batch.attempt(entry), attempt, dirs_exist_ok=True, symlinks=True)
        try:
            if message["event"] == "lost":
                raise CourseError(f"its process {message['ending']}")
            server_client.require_cuda(run, environment)
            return server_client.ended(run, attempt, message, environment)
        except CourseError as error:
            return engine.failure(run, attempt, error)

    def _on_lost_task(self, entry: Entry) -> Iterator[Event]:
        """A task has ended without telling how its run has ended."""
        job, state = f"Slurm job {entry.task}", cluster.state(entry.task)
        error = explain(state, job, self._batch.about["options"])
        if isinstance(error, NodeLostError) and not entry.losses:
            self._batch.put_back(entry)
            yield Waiting(self._runs[entry.key], f"to execute again: {error}")
        else:
            where = f"see {self._batch.log(entry.task)}"
            yield from self._fail(entry, error or MachineError(f"{job} ended ({state}): {where}"))

    def _on_lost_array(self, waiting: list[Entry]) -> Iterator[Event]:
        """No task is left: submit another array, unless the last one executed nothing."""
        job = self._batch.jobs[-1] if self._batch.jobs else ""
        if job and cluster.state(job) == "CANCELLED":
            error = MachineError(f"Slurm job {job} was cancelled")
        elif job and job not in self._messages.working:
            logs = self._batch.log(f"{job}_*")
            error = MachineError(f"Slurm job {job} has ended and executed nothing: see {logs}")
        else:
            self._submit(len(waiting))
            return
        for entry in waiting:
            yield from self._fail(entry, error)

    def _submit(self, waiting: int) -> None:
        """Submit an array; a smaller one if Slurm refuses it, for example by its QOS."""
        batch, about = self._batch, self._batch.about
        task = [*TASK, str(batch.folder.absolute())]
        words = [*SBATCH, f"--output={batch.log('%A_%a').absolute()}", *about["options"]]
        count = min(about["tasks"], waiting, cluster.largest_array())
        while True:
            done = ask(*words, f"--array=0-{count - 1}", f"--wrap=exec {shlex.join(task)}")
            if done.returncode == 0:
                return batch.add_job(done.stdout.strip().partition(";")[0])
            fault = plain((done.stderr.strip().splitlines() or ["sbatch failed"])[0])
            is_silent = SILENT.search(fault)
            if count == 1 or is_silent:
                error = SilentError if is_silent else MachineError
                raise error(f"--detach: {fault}: the same command tries again")
            count //= 2

    def _fail(self, entry: Entry, error: MachineError) -> Iterator[Event]:
        run = self._runs[entry.key]
        execution = engine.failure(run, attempts.begin(run, self._folder), error)
        yield from self._finish(entry, execution)

    def _finish(self, entry: Entry, execution: Execution) -> Iterator[Event]:
        yield Finished(execution, NO_SLOT, 0.0, execution.run.gpus)
        self._batch.drop(entry)  # not before the result is kept
        self._messages.last.pop(entry.name, None)
