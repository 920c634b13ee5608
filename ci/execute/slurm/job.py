"""A fork server in a job of a Slurm cluster.

The job is started by an `srun` that carries the conversation with the fork server, and serves runs
of any lesson until its time is up. Slurm leases the GPUs, and its word about a job only explains:
the run process itself says how a run ended.
"""

import contextlib
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.errors import MachineError
from ci.execute.executor import NodeLostError
from ci.execute.local import SOON_S, Process
from ci.execute.slurm import cluster
from ci.machine.program import SilentError, answer

JOB_NAME, ONE_TASK = "--job-name=pytorch-course", ("--nodes=1", "--ntasks=1")
ASK_S = 30.0  # between two questions why a job waits
STATE_S = 8.0  # for the controller to notice how a job has ended
SUBMIT = (sys.executable, "-IS", str(Path(__file__).with_name("submit.py")))
SRUN = ("srun", JOB_NAME, *ONE_TASK, "--export=ALL", "--unbuffered", "--mpi=none")
TELL = ("sh", "-c", 'echo "started: $SLURM_JOB_ID $SLURMD_NODENAME" >&2; exec "$@"', "sh")
QUEUED = re.compile(r"srun: job (\d+) queued")
STARTED = re.compile(r"started: (\d+) (\S*)")
OUT_OF_MEMORY = re.compile(r"exceeded .*memory limit|oom.kill|out.of.memory", re.IGNORECASE)
LOST = {
    "NODE_FAIL": "Slurm lost its node",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "it was preempted",
    cluster.GONE: "Slurm no longer knows how it ended",
}
ENDED = {
    "OUT_OF_MEMORY": "ran out of memory ({}): use --slurm-args=--mem=…",
    "TIMEOUT": "reached its time limit: use --slurm-args=--time=…",
    "CANCELLED": "was cancelled",
}
SUBJECT = (  # of an error of these programs
    r"^(srun|sbatch|slurmstepd[\w-]*): (error: )?"
    "(Unable to allocate resources: |Batch job submission failed: )?"
)
SILENT = re.compile(r"unable to contact|timed out|connection refused", re.IGNORECASE)


class Job(Process):
    """A fork server in a job of its own. A `ServerChannel`."""

    inherits = False

    def __init__(
        self, options: Sequence[str], variables: Mapping[str, str], longest_s: float
    ) -> None:
        """A run in it takes up to `longest_s`."""
        self.id = self.node = ""
        self._options, self._longest_s = list(options), longest_s
        self._errors: deque[str] = deque(maxlen=20)
        self._last_start = math.inf
        self._reason, self._next_question = "", 0.0
        super().__init__(
            "ci.worker.server",
            variables,
            before=(*SUBMIT, *SRUN, *options, *TELL),
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
        if not self.node:  # the controller was silent, or refused the job, or it was cancelled
            if any("has been cancelled" in line for line in lines):
                raise MachineError(f"Slurm job {self.id} was cancelled while it waited")
            fault = NodeLostError if SILENT.search(last) else MachineError
            raise fault(last or f"srun {ended}")
        job, state = f"Slurm job {self.id} on {self.node}", self._final_state()
        is_ours = "killed" in ended and state == "CANCELLED"
        if not is_ours and (error := explain(state, job, self._options)):
            raise error
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

    def _final_state(self) -> str:
        """The state of the job once it has ended; empty if the controller is silent."""
        if any(map(OUT_OF_MEMORY.search, self._errors)):
            return "OUT_OF_MEMORY"
        deadline, state = time.monotonic() + STATE_S, ""
        with contextlib.suppress(SilentError):
            while (state := cluster.state(self.id)) in ("RUNNING", "COMPLETING"):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        return state

    def _listen(self) -> None:
        """Read what srun and the job say, beside the conversation."""
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                if found := STARTED.search(line):
                    self.id, self.node = found.groups()
                    left_s = cluster.seconds_left(self.id)
                    self._last_start = time.monotonic() + left_s - self._longest_s
                elif found := QUEUED.search(line):
                    self.id = found[1]
                elif line.strip():
                    self._errors.append(line.strip())


def _of_another_job() -> set[str]:
    """Variables of a job that this process is in: srun would start a step of it, and no job."""
    if "SLURM_JOB_ID" not in os.environ:
        return set()
    return {name for name in os.environ if name.startswith("SLURM") and name != "SLURM_CONF"}


def plain(line: str) -> str:
    """A line of srun or sbatch without the words with which each of its errors begins."""
    return re.sub(SUBJECT, "", line)


def explain(state: str, job: str, options: Sequence[str]) -> MachineError | None:
    """Why a job, submitted with `options`, has ended in this state; None if the state is no reason.

    It is a NodeLostError if its run should execute once more.
    """
    if state in LOST:
        return NodeLostError(f"{job}: {LOST[state]}")
    memory = next(word for word in reversed(options) if word.startswith("--mem"))
    return MachineError(f"{job} {ENDED[state].format(memory)}") if state in ENDED else None
