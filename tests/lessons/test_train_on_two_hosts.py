"""lessons/parallel/train.py on two hosts: network namespaces with a link between them.

Each host has its own name, address and folder, and torchrun starts as the script's docstring says,
except that it waits a shorter time for hosts that are missing.
The last test starts it on two nodes of a Slurm cluster.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.machine_parts import missing
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.kernel

SCRIPT = ROOT / "lessons" / "parallel" / "train.py"
EPOCHS = 15
OPTIONS = ("--dtype", "float64", "--epochs", str(EPOCHS))
ENTER = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
LIMIT_S = 300  # on a machine that is busy
WAITS = "last_call_timeout=5,keep_alive_interval=2"  # seconds; the defaults are 30 and 5
PATIENCE = "timedelta(minutes=2)"  # in the script: the timeout of a collective operation


class Hosts:
    """Two hosts, of which the first is the meeting place."""

    timeout_s = 120  # of a collective operation, as in the script

    def __init__(self, folder: Path) -> None:
        mark = f"course{os.getpid()}"
        self.names = [f"{mark}a", f"{mark}b"]
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        hosts = [f"10.99.0.{i} {name}\n" for i, name in enumerate(self.names, start=1)]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))

    def connect(self) -> None:
        """Create the hosts and the link."""
        one, other = self.names
        for name in self.names:
            ip("netns", "add", name)
        peer = ["peer", "name", "eth0", "netns", other]
        ip("link", "add", "eth0", "netns", one, "type", "veth", *peer)
        for i, name in enumerate(self.names, start=1):
            ip("-n", name, "address", "add", f"10.99.0.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def disconnect(self) -> None:
        """Kill everything on the hosts, and remove them."""
        for name in self.names:
            self.kill(name)
            ip("netns", "delete", name)
        for process in self._processes:
            process.communicate()

    def folder(self, name: str) -> Path:
        """The folder of a host."""
        return self._folder / name

    def train(self, name: str) -> subprocess.Popen[str]:
        """The commands of the docstring on one host, with CPUs."""
        self.folder(name).mkdir()
        script = SCRIPT.read_text()
        assert PATIENCE in script
        script = script.replace(PATIENCE, f"timedelta(seconds={self.timeout_s})")
        (self.folder(name) / SCRIPT.name).write_text(script)
        rendezvous = ["--rdzv-id", "1", "--rdzv-backend", "c10d"]
        rendezvous += ["--rdzv-endpoint", f"{self.names[0]}:29400"]
        rendezvous += ["--rdzv-conf", WAITS]
        workers = ["--nnodes", "1:2", "--nproc-per-node", "2", "--max-restarts", "3"]
        command = ["-m", "torch.distributed.run", *workers, *rendezvous, "train.py", *OPTIONS]
        inside = [*f"ip netns exec {name} unshare --mount --uts sh -c".split(), ENTER, "sh", name]
        self._processes.append(
            subprocess.Popen(
                [*inside, self._folder / "hosts", sys.executable, *command],
                cwd=self.folder(name),
                env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self._processes[-1]

    def cut(self) -> None:
        """Cut the link: nothing arrives any more, and nobody is told.

        Linux gives a connection up after a quarter of an hour, here after seconds.
        """
        for name in self.names:
            ip("netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_retries2=4")
        ip("-n", self.names[0], "link", "set", "eth0", "down")

    def kill(self, name: str) -> None:
        """Kill all processes of a host, as a power failure would."""
        for pid in ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def wait_for_step(self, name: str, step: int) -> None:
        """Wait until a host has saved this many steps."""
        end = time.monotonic() + LIMIT_S
        path = self.folder(name) / "checkpoint.pt"
        while not path.exists() or torch.load(path)["step"] < step:
            assert time.monotonic() < end
            time.sleep(0.05)


def ip(*words: str) -> str:
    """The output of a command of iproute2, which must succeed."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Two hosts with a link between them."""
    if os.getuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        missing("root, ip and unshare")
    found = Hosts(tmp_path)
    try:
        found.connect()
        yield found
    finally:
        found.disconnect()


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights that one process arrives at."""
    folder = tmp_path_factory.mktemp("one")
    shutil.copy(SCRIPT, folder)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "train.py"]
    subprocess.run([sys.executable, *command, *OPTIONS], cwd=folder, check=True)
    return weights(folder)


def weights(folder: Path) -> dict[str, Any]:
    """The weights in the last checkpoint of a folder."""
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt")
    assert state["step"] == EPOCHS * 1024 // 64
    return dict(state["network"])


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The weights agree to 1e-12 of the largest of each tensor."""
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= 1e-12 * weight.abs().max(), name


def finish(processes: Sequence["subprocess.Popen[str]"]) -> None:
    """All have succeeded."""
    for process in processes:
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, output


def test_two_hosts_arrive_at_the_weights_of_one_device(
    hosts: Hosts, one_device: dict[str, Any]
) -> None:
    """With two processes each, in float64."""
    finish([hosts.train(name) for name in hosts.names])
    for name in hosts.names:
        assert_close(weights(hosts.folder(name)), one_device)


def test_training_goes_on_when_a_host_is_killed(hosts: Hosts, one_device: dict[str, Any]) -> None:
    """The other host restarts its processes from the last step, and ends at the same weights."""
    head, other = hosts.names
    process = hosts.train(head)
    hosts.train(other)
    hosts.wait_for_step(other, 20)
    hosts.kill(other)
    finish([process])
    assert_close(weights(hosts.folder(head)), one_device)


def test_without_the_meeting_place_the_other_host_ends(hosts: Hosts) -> None:
    """With an error, and not after many minutes; its last step is kept."""
    head, other = hosts.names
    hosts.train(head)
    process = hosts.train(other)
    hosts.wait_for_step(other, 20)
    hosts.kill(head)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode != 0
    assert "RendezvousConnectionError" in output
    assert (hosts.folder(other) / "checkpoint.pt").exists()


def test_training_goes_on_when_the_link_is_cut(hosts: Hosts, one_device: dict[str, Any]) -> None:
    """The host of the rendezvous ends at the same weights; the agent of the other one ends."""
    hosts.timeout_s = 10
    head, other = hosts.names
    process, cut_off = [hosts.train(name) for name in hosts.names]
    hosts.wait_for_step(other, 20)
    hosts.cut()
    output, _ = cut_off.communicate(timeout=LIMIT_S)
    assert cut_off.returncode != 0
    assert "RendezvousConnectionError" in output
    finish([process])
    assert_close(weights(hosts.folder(head)), one_device)


TORCHRUN = """\
exec {python} -m torch.distributed.run --nnodes $SLURM_NNODES --nproc-per-node 1 \
    --rdzv-id $SLURM_JOB_ID --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port} train.py {options}
"""


def test_torchrun_takes_its_hosts_from_an_allocation(
    slurm: Cluster, tmp_path: Path, one_device: dict[str, Any]
) -> None:
    """Two nodes, which share the folder."""
    shutil.copy(SCRIPT, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = ["--nodes=2", "--ntasks-per-node=1", "--mem=2G", "--time=5", "--mpi=none"]
    script = TORCHRUN.format(python=sys.executable, port=port, options=" ".join(OPTIONS))
    done = subprocess.run(
        ["srun", *words, "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert_close(weights(tmp_path), one_device)
