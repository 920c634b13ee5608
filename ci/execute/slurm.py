"""Fork servers as jobs of a Slurm cluster.

Each slot has a job, started by an `srun` that carries the conversation with the fork server. The
job serves runs of any lesson until its time is up. Slurm leases the GPUs, and its word about a job
only explains: the run process itself says how a run ended.
"""

import contextlib
import math
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.errors import MachineError, UsageError
from ci.execute import cluster
from ci.execute.executor import NodeLostError
from ci.execute.leases import Lease
from ci.execute.local import SOON_S, LocalExecutor, Process
from ci.machine.program import answer, ask
from ci.plan.planner import Run

STARTUP_S = 120.0  # of a job's time limit: the fork server imports
LONGEST_S = 1800.0  # of a job's time limit: how long a job serves runs, beyond the longest of them
SERVER_MIB, RANK_MIB = 2048, 1024  # Slurm counts memory that processes share several times
ASK_S = 30.0  # between two questions why a job waits
STATE_S = 8.0  # for the controller to notice how a job has ended
SUBMIT = str(Path(__file__).with_name("submit.py"))
TELL = 'echo "started: $SLURM_JOB_ID $SLURMD_NODENAME" >&2; exec "$@"'
QUEUED = re.compile(r"srun: job (\d+) queued")
STARTED = re.compile(r"started: (\d+) (\S*)")
OUT_OF_MEMORY = re.compile(r"exceeded .*memory limit|oom.kill|out.of.memory", re.IGNORECASE)
SUBJECT = (  # of an error of these programs
    r"^(srun|sbatch|slurmstepd[\w-]*): (error: )?"
    "(Unable to allocate resources: |Batch job submission failed: )?"
)
LOST = {
    "NODE_FAIL": "Slurm lost its node",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "it was preempted",
}


class SlurmExecutor(LocalExecutor):
    """The nodes of a Slurm cluster, with the packages of this interpreter. An `Executor`."""

    shared = False
    is_scheduled = True

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """`arguments` are further words for srun."""
        super().__init__()
        self._arguments = list(arguments)
        self._jobs: set[Job] = set()

    @classmethod
    def ready(cls, arguments: str) -> "SlurmExecutor":
        """An executor that passes `arguments` on to srun.

        Raises UsageError or MachineError where Slurm would refuse its jobs.
        """
        try:
            words = shlex.split(arguments)
        except ValueError as error:
            raise UsageError(f"--slurm-args {arguments}: {error}") from None
        done = ask("srun", "--test-only", "--ntasks=1", *words, "true")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["srun failed"]
            fault = UsageError if words else MachineError
            raise fault(f"--on slurm: {plain(lines[0])}: srun {shlex.join(words)}".rstrip())
        return cls(words)

    @property
    def jobs(self) -> Sequence[str]:
        """The ids of its jobs that wait or run."""
        return sorted((job.id for job in list(self._jobs) if job.id), key=int)

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> "Job":
        """Submit a job for `runs`, which may take turns in it."""
        longest_s = max(run.timeout_s for run in runs)
        job = Job(self.options(runs), variables, longest_s, self._jobs)
        self._jobs.add(job)
        return job

    def options(self, runs: Sequence[Run]) -> list[str]:
        """What a job for `runs` of one kind asks Slurm for."""
        ranks = max(int(run.parameters.get("world_size", 1)) for run in runs)
        longest_s = max(run.timeout_s for run in runs)
        limit_s = STARTUP_S + longest_s + min(LONGEST_S, sum(run.timeout_s for run in runs))
        options = [
            f"--cpus-per-task={runs[0].threads * ranks}",
            f"--mem={SERVER_MIB + RANK_MIB * ranks}M",
            f"--time={math.ceil(limit_s / 60)}",
        ]
        if gpus := runs[0].gpus:
            model = gpus[0].uuid.rpartition(":")[0]
            options.append(f"--gres=gpu:{f'{model}:' if model else ''}{len(gpus)}")
        return [*options, *self._arguments]

    def facts(self) -> Mapping[str, object]:
        """As on this machine, and what chooses the nodes."""
        return {**super().facts(), "executor": "slurm", "arguments": self._arguments}


class Job(Process):
    """A fork server in a job of its own. A `ServerChannel`."""

    inherits = False

    def __init__(
        self,
        options: Sequence[str],
        variables: Mapping[str, str],
        longest_s: float,
        active: "set[Job]",
    ) -> None:
        """It leaves `active` when it is closed; a run in it takes up to `longest_s`."""
        self.id = self.node = ""
        self._options, self._longest_s, self._active = list(options), longest_s, active
        self._errors: deque[str] = deque(maxlen=20)
        self._last_start = math.inf
        self._reason, self._next_question = "", 0.0
        fixed = ("--job-name=pytorch-course", "--nodes=1", "--ntasks=1", "--export=ALL")
        srun = ("srun", *fixed, "--unbuffered", "--mpi=none", *options)
        super().__init__(
            "ci.worker.server",
            variables,
            before=(sys.executable, "-IS", SUBMIT, *srun, "sh", "-c", TELL, "sh"),
            without=_of_another_job(),
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def may_serve_again(self) -> bool:
        """Whether its time is enough for another run."""
        return time.monotonic() < self._last_start

    @property
    def wait_reason(self) -> str:
        """Why it has not started, in Slurm's word; empty if it has, or was not queued."""
        if self.node or not self.id:
            return ""
        if time.monotonic() > self._next_question:
            self._next_question = time.monotonic() + ASK_S
            reason = cluster.wait_reason(self.id)
            remedy = ": use --slurm-args=--time=…" if reason == "PartitionTimeLimit" else ""
            self._reason = f"in Slurm's queue: {reason}{remedy}"
        return self._reason

    def memory(self, pid: int) -> int:
        """Zero, since Slurm enforces the job's limit."""
        return 0

    def ending(self) -> str:
        """Raise MachineError: the job has ended, and not only a run in it."""
        ended = super().ending()
        self._listener.join(1)
        lines = sorted(self._errors, key=lambda line: "error:" in line)
        last = plain(lines[-1]) if lines else ""
        if not self.node:
            if any("has been cancelled" in line for line in lines):
                raise MachineError(f"Slurm job {self.id} was cancelled while it waited")
            raise MachineError(last or f"srun {ended}")
        job, state = f"Slurm job {self.id} on {self.node}", self._final_state()
        if any(map(OUT_OF_MEMORY.search, self._errors)):
            state = "OUT_OF_MEMORY"
        if not state.startswith("CANCELLED") or "killed" not in ended:
            raise_for(state, job, self._options)
        details = "; ".join(filter(None, (state, last)))
        raise MachineError(
            f"{job}: its fork server or srun {ended}" + f" ({details})" * bool(details)
        )

    def close(self) -> None:
        """End the fork server, and with it the job; cancel a job that waits or does not end."""
        self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SOON_S if self.node else 0)
        if self.id and self._process.poll() is None:
            answer("scancel", self.id)
        super().close()
        self._listener.join(1)
        self._active.discard(self)

    def _final_state(self) -> str:
        """The state of the job once it has ended; empty if that is unknown."""
        deadline = time.monotonic() + STATE_S
        while (found := cluster.state(self.id)) in ("RUNNING", "COMPLETING"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return found

    def _listen(self) -> None:
        """Read what srun and the job say, beside the conversation."""
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                if found := STARTED.search(line):
                    self.id, self.node = found.groups()
                    with contextlib.suppress(MachineError):
                        left = cluster.seconds_left(self.id)
                        self._last_start = time.monotonic() + left - self._longest_s
                elif found := QUEUED.search(line):
                    self.id = found[1]
                elif line.strip():
                    self._errors.append(line.strip())


def raise_for(state: str, job: str, options: Sequence[str]) -> None:
    """Raise MachineError if the state of a job, submitted with `options`, says why it has ended."""
    if state in LOST:
        raise NodeLostError(f"{job}: {LOST[state]}")
    if state == "OUT_OF_MEMORY":
        allowed = next(word for word in reversed(options) if word.startswith("--mem"))
        raise MachineError(f"{job} ran out of memory ({allowed}): use --slurm-args=--mem=…")
    if state == "TIMEOUT":
        raise MachineError(f"{job} reached its time limit: use --slurm-args=--time=…")
    if state.startswith("CANCELLED"):
        raise MachineError(f"{job} was cancelled")


def _of_another_job() -> set[str]:
    """Variables of a job that this process is in: srun would start a step of it, and no job."""
    if "SLURM_JOB_ID" not in os.environ:
        return set()
    return {name for name in os.environ if name.startswith("SLURM") and name != "SLURM_CONF"}


def plain(line: str) -> str:
    """A line of srun or sbatch without the words with which each of its errors begins."""
    return re.sub(SUBJECT, "", line)
