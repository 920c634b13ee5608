"""A Slurm cluster for tests: one controller and three nodes with two GPUs each, on this machine.

It runs as root, beside any other Slurm, with all of its files in one temporary folder. The nodes
are `slurmd -N`; their GPUs are character devices, which nobody opens. `python -m
tests.slurm.cluster COMMAND…` runs a command beside such a cluster.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

NODES = ("n1", "n2", "n3")
GPUS_PER_NODE, CPUS, MEMORY_MIB = 2, 8, 16_000
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "setpriv")
START_S = 30.0
NULL = 1, 3  # the device number of /dev/null
CONFIGURATION = """\
ClusterName=course
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=5
InactiveLimit=5
KillWait=2
ReturnToService=2
MaxArraySize=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=120 State=UP
PartitionName=urgent Nodes=ALL MaxTime=120 State=UP PriorityTier=9 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
    "RealMemory={memory} Gres=gpu:a100:{gpus}"
)


class Cluster:
    """A cluster that has started; `environment` is that of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons, and wait until the nodes are up."""
        self._configure()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        words = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{word}" for option, word in words.items()]
        key = f"--key-file={self.folder}/munge.key"
        self._start("munged", "munged", "--foreground", "--force", key, *options)
        self.start_controller()
        for name in NODES:
            self.start_node(name)
        self.wait_until_up()

    def start_controller(self) -> None:
        """Start the controller, which continues with the jobs that it knew."""
        self._start("slurmctld", "slurmctld", "-D")

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self._start(name, "slurmd", "-D", "-N", name)

    def kill(self, name: str) -> None:
        """Kill a daemon with SIGKILL: the controller, or that of a node."""
        process = self._daemons.pop(name)
        process.kill()
        process.wait()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """The controller takes connections, and answers nothing before the block ends."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def lose(self, name: str) -> None:
        """End a node as a power failure would: its daemon, and all processes of its jobs."""
        self.kill(name)
        for process in self.processes(name):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def notice_loss(self, name: str) -> None:
        """Let the controller give a node up now, and not after its SlurmdTimeout."""
        self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=lost")

    def preempt(self, name: str) -> None:
        """Take a node away from its jobs, for one that is more urgent."""
        self.ask("srun", "--partition=urgent", "--exclusive", f"--nodelist={name}", "true")

    def wait_until_up(self) -> None:
        """Wait until each node can run jobs.

        A controller that was killed may give the id of a job once more; Slurm then drains its node,
        until an administrator resumes it.
        """
        wanted = {f"{name} {state}" for name in NODES for state in ("idle", "mix", "alloc", "comp")}
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            states = {*self.ask("sinfo", "-h", "-N", "-o", "%N %t").splitlines()}
            if len(states) == len(NODES) and wanted.issuperset(states):
                return
            for name in (state.split()[0] for state in states if " dr" in state):
                self.ask("scontrol", "update", f"nodename={name}", "state=resume")
            time.sleep(0.2)
        raise TimeoutError(f"not all nodes are up: {states}; {self._last_errors()}")

    def ask(self, *command: str) -> str:
        """The output of a command of Slurm, stripped."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def jobs_of(self, name: str) -> list[str]:
        """The ids of the jobs of a name that wait or run."""
        return self.ask("squeue", "-h", f"--name={name}", "-o", "%i").splitlines()

    def states(self, name: str) -> set[str]:
        """The states of these jobs, such as `PENDING`."""
        return {*self.ask("squeue", "-h", f"--name={name}", "-o", "%T").splitlines()}

    def last_job(self) -> str:
        """The id of the job that was submitted last, also if it has ended."""
        return max(self.ask("squeue", "-h", "--states=all", "-o", "%A").splitlines(), key=int)

    def processes(self, *nodes: str) -> list[psutil.Process]:
        """The processes of jobs on these nodes, or on all: tasks, and managers of their steps."""
        return [p for p in psutil.process_iter() if self._node(p) in (nodes or NODES)]

    def _node(self, process: psutil.Process) -> str:
        """The node on which a job has a process; empty for other processes."""
        with contextlib.suppress(psutil.Error):
            if process.name() == "slurmstepd":
                logs = [Path(file.path) for file in process.open_files()]
                return next((log.stem for log in logs if log.parent == self.folder), "")
            variables = process.environ()
            if variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                return variables.get("SLURMD_NODENAME", "")
        return ""

    def end(self) -> None:
        """Cancel all jobs, end all daemons, and kill what they have left."""
        if "slurmctld" in self._daemons:
            self.ask("scancel", "--user=root")
            deadline = time.monotonic() + 5
            while self.ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.1)
        for process in reversed([*self._daemons.values()]):
            process.terminate()
        for process in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],  # if the tests are killed
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _configure(self) -> None:
        host = socket.gethostname()
        ports = _free_ports(1 + len(NODES))
        nodes, gres = [], []
        for name, port in zip(NODES, ports[1:], strict=True):
            node = NODE.format(
                name=name, host=host, port=port, cpus=CPUS, memory=MEMORY_MIB, gpus=GPUS_PER_NODE
            )
            nodes.append(node)
            devices = [self.folder / f"{name}-gpu{number}" for number in range(GPUS_PER_NODE)]
            for device in devices:
                os.mknod(device, 0o20666, os.makedev(*NULL))
                line = f"NodeName={name} Name=gpu Type=a100 File={device} Flags=nvidia_gpu_env"
                gres.append(line)
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        text = CONFIGURATION.format(
            host=host, controller=ports[0], folder=self.folder, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")

    def _last_errors(self) -> str:
        logs = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return "\n".join([line for line in lines if "error" in line or "fatal" in line][-8:])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    started = Cluster(folder)
    try:
        started.start()
        yield started
    finally:
        started.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with cluster() as found:
        sys.exit(subprocess.run(sys.argv[1:], env=found.environment).returncode)
