"""The nodes of a Slurm cluster as a place for fork servers: what their jobs ask Slurm for."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.errors import MachineError, UsageError
from ci.execute.leases import Lease
from ci.execute.local import LocalExecutor
from ci.execute.slurm.job import Job, plain
from ci.machine.program import ask
from ci.plan.planner import Run

STARTUP_S = 120.0  # of a job's time limit: the fork server imports
LONGEST_S = 1800.0  # of a job's time limit: how long a job serves runs, beyond the longest of them
SERVER_MIB, RANK_MIB = 2048, 1024  # Slurm counts memory that processes share several times


class SlurmExecutor(LocalExecutor):
    """The nodes of a Slurm cluster, with the packages of this interpreter. An `Executor`."""

    shared = False
    is_scheduled = True

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """`arguments` are further words for srun."""
        super().__init__()
        self._arguments = list(arguments)

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

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> Job:
        """Submit a job for `runs`, which may take turns in it."""
        longest_s = max(run.timeout_s for run in runs)
        return Job(self.options(runs), variables, longest_s)

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
