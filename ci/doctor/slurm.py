"""What `invoke doctor --on slurm` examines: the cluster, and what a job finds on a node."""

import sys
from collections.abc import Iterator
from pathlib import Path

from ci.doctor.diagnosis import Finding, Verdict
from ci.errors import MachineError
from ci.execute.slurm import cluster
from ci.machine.program import answer, ask
from ci.plan.gpus import Request

CLUSTER = "on the cluster"  # a place
WAIT_S = 30  # for a node to be free
TRY = "import os, ci.worker, torch; print(os.environ['SLURMD_NODENAME'], torch.__version__)"


def examine(request: Request) -> Iterator[Finding]:
    """Yield the findings about the cluster of this machine."""
    try:
        found = cluster.find()
        granted = found.grant(request)
    except MachineError as error:
        yield Finding(CLUSTER, "Slurm", Verdict.FAIL, str(error))
        return
    cores = sum(node.cores for node in found.nodes)
    version = answer("srun", "--version")
    text = f"{version}: {len(found.nodes)} nodes that are up, with {cores} cores"
    yield Finding(CLUSTER, "Slurm", Verdict.OK, text)
    if granted:
        gpus = sum(node.gpus for node in found.nodes)
        text = f"{gpus} in all; a run gets at most {len(granted)} x {granted[0].name}, of one node"
        yield Finding(CLUSTER, "GPUs", Verdict.OK, text)
    else:
        yield Finding(CLUSTER, "GPUs", Verdict.ABSENT, "lessons run on the CPU")
    limits = answer("sinfo", "--noheader", "--format=%P %l").splitlines()
    yield Finding(CLUSTER, "time limits", Verdict.OK, ", ".join(limits))
    yield _try_job()


def _try_job() -> Finding:
    """Whether a node sees this checkout and can import what a lesson needs."""
    options = [f"--immediate={WAIT_S}", "--ntasks=1", "--time=5", "--mem=2G", "--mpi=none"]
    options.append(f"--chdir={Path.cwd()}")
    try:
        done = ask("srun", *options, sys.executable, "-P", "-c", TRY)
    except MachineError as error:
        return Finding(CLUSTER, "a job", Verdict.FAIL, str(error))
    lines = done.stderr.strip().splitlines() or ["srun failed"]
    if done.returncode == 0 and "couldn't chdir" not in done.stderr:
        node, version = done.stdout.split()
        text = f"node {node} sees this directory, and imports torch {version}"
        return Finding(CLUSTER, "a job", Verdict.OK, text)
    if "Unable to allocate" in done.stderr:
        text = f"no node was free within {WAIT_S} s: {lines[-1]}"
        return Finding(CLUSTER, "a job", Verdict.WARN, text, "try again later")
    remedy = "put the checkout and its .venv where login and compute nodes share a path"
    return Finding(CLUSTER, "a job", Verdict.FAIL, lines[0], remedy)
