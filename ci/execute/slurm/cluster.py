"""A Slurm cluster as its commands describe it: its nodes and GPUs, and what became of a job."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from ci.errors import MachineError, UsageError
from ci.machine.program import SilentError, answer, ask
from ci.plan.gpus import Gpu, Request

MOST_JOBS = 32  # at once, unless --jobs says otherwise: a cluster has other users
UNUSABLE = ("down", "drain", "fail", "unknown", "power", "maint", "reboot")
GONE = "GONE"  # the state of a job that Slurm has forgotten
GRES = re.compile(r"\bgpu(?::([^:,()\s]+))?:(\d+)")


@dataclass(frozen=True)
class Node:
    """A node that can run jobs: its cores, and the model and number of its GPUs."""

    name: str
    cores: int
    model: str = ""
    gpus: int = 0


@dataclass(frozen=True)
class Cluster:
    """The nodes that can run jobs."""

    nodes: Sequence[Node]

    def grant(self, request: Request) -> tuple[Gpu, ...]:
        """The GPUs that one run can get at most, all of one node; Slurm decides which they are.

        Raises MachineError if no node has as many as requested, and UsageError for their indices.
        """
        if request.ids:
            raise UsageError(
                f"--gpus {request.text}: Slurm chooses the GPUs of a job; use a number, auto, none"
            )
        if request.text == "none":
            return ()
        node = max(self.nodes, key=lambda node: node.gpus)
        if request.count and request.count > node.gpus:
            raise MachineError(
                f"--gpus {request.text}: no node of this cluster that is up has more than "
                f"{node.gpus} GPUs (sinfo -N -o '%N %G %T')"
            )
        count = request.count or node.gpus
        return tuple(Gpu(str(i), f"{node.model}:{i}", node.model or "GPU") for i in range(count))

    def capacity(self, granted: Sequence[Gpu]) -> int:
        """How many jobs are submitted at once: one per GPU, or one per core without GPUs."""
        gpus = sum(node.gpus for node in self.nodes if not granted or node.model == _model(granted))
        cores = sum(node.cores for node in self.nodes)
        return max(1, min(gpus if granted else cores, MOST_JOBS))


def _model(gpus: Sequence[Gpu]) -> str:
    return gpus[0].uuid.rpartition(":")[0]


def find() -> Cluster:
    """The cluster of this machine. Raises MachineError where Slurm does not answer."""
    if not shutil.which("srun"):
        raise MachineError(
            "--on slurm: this machine has no srun: use a login node of the cluster, or --on here"
        )
    done = ask("sinfo", "--noheader", "--Node", "--format=%N|%c|%G|%T")
    if done.returncode:
        fault, *_ = done.stderr.strip().splitlines() or ["sinfo failed"]
        raise MachineError(f"--on slurm: {fault}: ask the cluster's administrator")
    nodes = {node.name: node for line in done.stdout.splitlines() if (node := _parse(line))}
    if not nodes:
        raise MachineError("--on slurm: no node of this cluster is up: see sinfo -N")
    return Cluster(tuple(nodes.values()))


def _parse(line: str) -> Node | None:
    """The node of a line of sinfo; None if it cannot run jobs."""
    name, cores, gres, state = line.split("|")
    if state.startswith(UNUSABLE) or state.endswith("*"):  # the controller gets no answer from it
        return None
    found = [(model, int(count)) for model, count in GRES.findall(gres)]
    model, count = max(found, key=lambda each: each[1], default=("", 0))
    return Node(name, int(cores), model, count)


def wait_reason(job: str) -> str:
    """Why a job waits, in Slurm's word: `Resources`, `Priority`."""
    reason = answer("squeue", "--noheader", f"--jobs={job}", "--format=%r")
    return reason or "the controller does not answer"


@dataclass(frozen=True)
class Task:
    """A task of a job array that waits or runs: its node, if it has one, and why it waits."""

    node: str
    reason: str


def tasks() -> dict[str, Task]:
    """This user's jobs and tasks of arrays, by id (`12_3`). Raises SilentError."""
    done = ask("squeue", "--noheader", "--array", "--me", "--format=%i|%N|%r")
    if done.returncode:
        raise SilentError(done.stderr.strip())
    lines = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {job: Task(node, reason) for job, node, reason in lines}


def largest_array() -> int:
    """How many tasks an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", answer("scontrol", "show", "config"))
    return max(1, int(found[1])) if found else 1


def seconds_left(job: str) -> float:
    """How long a job may still run; infinite without a limit."""
    text = answer("squeue", "--noheader", f"--jobs={job}", "--format=%L")
    days, _, time = text.rpartition("-")
    if not re.fullmatch(r"[\d:]+", time):
        return float("inf")
    seconds = 0.0
    for part in time.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 86400 + seconds


def state(job: str) -> str:
    """The state of a job: `RUNNING`, `NODE_FAIL`, or GONE. Raises SilentError."""
    done = ask("scontrol", "show", "job", "-o", job)
    found = re.search(r"\bJobState=(\w+)", done.stdout)
    if not found and "Invalid job id" not in done.stderr:
        raise SilentError(done.stderr.strip())
    return found[1] if found else GONE
