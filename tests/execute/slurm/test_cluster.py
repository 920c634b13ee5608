"""What is read from Slurm's commands, which are replaced here."""

from pathlib import Path

import pytest

from ci.errors import MachineError, UsageError
from ci.execute.executor import parse
from ci.execute.slurm import cluster
from ci.execute.slurm.cluster import Cluster, Node
from ci.machine.program import SilentError
from ci.plan import gpus
from tests.slurm.runs import put_into_path

SINFO = """\
n1|64|gpu:a100:4(S:0-1)|idle
n1|64|gpu:a100:4(S:0-1)|idle
n2|64|gpu:h100:8(S:0-1),shard:16|mixed
n3|64|gpu:2|allocated
n4|128|(null)|idle
n5|64|gpu:a100:16|drained
n6|64|gpu:a100:16|idle*
"""


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Let a command print a text."""
    put_into_path(folder, monkeypatch, name, f"cat <<'END'\n{text.strip()}\nEND\n")


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster of several kinds of nodes."""
    answer(tmp_path, monkeypatch, "srun", "")
    answer(tmp_path, monkeypatch, "sinfo", SINFO)
    return cluster.find()


def test_nodes_that_cannot_run_jobs_do_not_count(found: Cluster) -> None:
    """Neither drained nodes nor silent ones; a node in two partitions counts once."""
    assert found.nodes == (
        Node("n1", 64, "a100", 4),
        Node("n2", 64, "h100", 8),
        Node("n3", 64, "", 2),
        Node("n4", 128),
    )


def test_a_run_gets_at_most_the_gpus_of_one_node(found: Cluster) -> None:
    """Of the node that has most."""
    granted = found.grant(gpus.parse("auto"))
    assert [gpu.name for gpu in granted] == ["h100"] * 8
    assert found.capacity(granted) == 8


def test_a_cluster_is_not_filled_with_jobs(found: Cluster) -> None:
    """Without GPUs it is one per core, but a cluster has other users."""
    assert found.capacity(found.grant(gpus.parse("none"))) == cluster.MOST_JOBS


def test_more_gpus_than_a_node_has_are_refused(found: Cluster) -> None:
    """The cluster has more, but on several nodes."""
    with pytest.raises(MachineError, match="--gpus 9: no node .* has more than 8 GPUs"):
        found.grant(gpus.parse("9"))


def test_gpus_of_a_job_cannot_be_chosen(found: Cluster) -> None:
    """Slurm chooses them."""
    with pytest.raises(UsageError, match="Slurm chooses the GPUs"):
        found.grant(gpus.parse("device=0,1"))


def test_without_srun_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the machine's fault."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="has no srun: use a login node"):
        cluster.find()


def test_a_cluster_without_usable_nodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would ever start."""
    answer(tmp_path, monkeypatch, "srun", "")
    answer(tmp_path, monkeypatch, "sinfo", "n1|64|(null)|down*")
    with pytest.raises(MachineError, match="no node of this cluster is up"):
        cluster.find()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9:30", 570), ("1:00:00", 3600), ("2-00:00:01", 172801), ("UNLIMITED", float("inf"))],
)
def test_the_time_that_a_job_has_left_is_read(
    text: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each form that squeue prints."""
    answer(tmp_path, monkeypatch, "squeue", text)
    assert cluster.seconds_left("1") == seconds


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str) -> None:
    """Let a command fail with this fault."""
    put_into_path(folder, monkeypatch, name, f"echo '{fault}' >&2\nexit 1\n")


def test_a_job_can_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm keeps the states of jobs for minutes."""
    fault = "slurm_load_jobs error: Invalid job id specified"
    refuse(tmp_path, monkeypatch, "scontrol", fault)
    assert cluster.state("12") == cluster.GONE


def test_no_answer_about_a_job_does_not_mean_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its run would be executed twice."""
    fault = "slurm_load_jobs error: Socket timed out on send/recv operation"
    refuse(tmp_path, monkeypatch, "scontrol", fault)
    with pytest.raises(SilentError, match="Socket timed out"):
        cluster.state("12")


def test_no_answer_does_not_mean_that_there_are_no_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the runs of all tasks would be lost."""
    refuse(tmp_path, monkeypatch, "squeue", "slurm_load_jobs error: Unable to contact")
    with pytest.raises(SilentError, match="Unable to contact"):
        cluster.tasks()


def test_arguments_for_slurm_need_slurm() -> None:
    """Elsewhere they would have no effect."""
    with pytest.raises(UsageError, match="--slurm-args: needs --on slurm"):
        parse("here", "--time=3")


def test_only_slurm_goes_on_without_the_command() -> None:
    """Elsewhere nobody would execute the runs."""
    with pytest.raises(UsageError, match="--detach: needs --on slurm"):
        parse("here", detach=True)
