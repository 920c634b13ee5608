"""Runs that wait in the queue of a real Slurm cluster, and a controller that is down."""

import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ci.execute import engine
from ci.execute.events import Waiting
from ci.execute.slurm.executor import SlurmExecutor
from tests.conftest import Read, eventually
from tests.slurm.cluster import Cluster
from tests.slurm.runs import (
    PATIENCE_S,
    SLEEP,
    WHERE,
    executions,
    finish,
    follow,
    put_into_path,
    runs_of,
    start,
    wait_for,
)

pytestmark = pytest.mark.kernel

SILENCE_S = 7  # the commands of this cluster wait 5 s for an answer


def test_a_run_survives_the_daemon_of_its_node(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """The job's own processes continue without slurmd."""
    runs = runs_of([read(SLEEP.format(seconds=3))])
    try:
        events = follow(
            runs, tmp_path / "runs", lambda where: slurm.kill("n1"), arguments=["-w", "n1"]
        )
    finally:
        slurm.start_node("n1")
    assert [end.end for end in executions(events)] == ["completed"]


def test_a_run_survives_the_controller(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """Only what starts later needs it."""
    runs = runs_of([read(SLEEP.format(seconds=1))])
    try:
        events = follow(runs, tmp_path / "runs", lambda where: slurm.kill("slurmctld"))
    finally:
        slurm.start_controller()
    assert [end.end for end in executions(events)] == ["completed"]


def test_a_job_is_submitted_once_the_controller_answers(
    slurm: Cluster, read: Read, tmp_path: Path
) -> None:
    """A controller that is down for a moment loses no run."""
    slurm.kill("slurmctld")
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, runs_of([read(WHERE)]), tmp_path / "runs")
        time.sleep(3)
        slurm.start_controller()
    (end,) = executions(following.result())
    assert end.end == "completed", end.reason


def test_a_silent_controller_loses_no_run(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """Neither one that is to be submitted, nor one in progress, nor one that waits in the queue."""
    runs = runs_of([read(wait_for(tmp_path / "mark"))], "size=2,3")

    def silence(where: SlurmExecutor) -> None:
        wanted = {"RUNNING", "PENDING"}
        assert eventually(lambda: slurm.states("pytorch-course") == wanted, PATIENCE_S)
        with slurm.silent():
            (tmp_path / "mark").touch()
            time.sleep(SILENCE_S)

    with ThreadPoolExecutor(1) as pool, slurm.silent():
        words = ["--exclusive", "-wn3"]  # it stays in COMPLETING for a minute, and n1 is needed
        following = pool.submit(follow, runs, tmp_path / "runs", silence, slots=2, arguments=words)
        time.sleep(SILENCE_S)
    found = executions(following.result())
    assert [end.end for end in found] == ["completed"] * 2, [end.reason for end in found]


def test_without_a_controller_nothing_starts(slurm: Cluster, course: Path) -> None:
    """One line says so; the status is that of the machine."""
    slurm.kill("slurmctld")
    try:
        status, output = finish(start(course))
    finally:
        slurm.start_controller()
    assert status == 3
    assert "Unable to contact slurm controller" in output
    assert len(output.splitlines()) == 1


def test_a_run_waits_in_the_queue(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """With Slurm's reason; nothing is lost."""
    runs = runs_of([read(WHERE)])
    where = SlurmExecutor(["--hold"])
    reasons = []
    for event in engine.execute(runs, tmp_path / "runs", where):
        if isinstance(event, Waiting):
            reasons.append(event.reason)
            slurm.ask("scontrol", "release", slurm.last_job())
    assert len(reasons) == 1
    assert reasons[0] == "in Slurm's queue: JobHeldUser"


def test_a_run_does_not_wait_for_a_particular_job(
    slurm: Cluster, read: Read, tmp_path: Path
) -> None:
    """If one job starts and the others wait, that job serves all runs, and the others go."""
    runs = runs_of([read(WHERE)], "size=2,3,4")
    found = executions(follow(runs, tmp_path / "runs", slots=3, arguments=["--exclusive", "-wn1"]))
    assert [end.end for end in found] == ["completed"] * 3
    assert len({end.environment["Slurm job"] for end in found}) == 1


REFUSE = """\
mkdir {folder}/first 2> /dev/null && exec {real} "$@"
echo "srun: error: Unable to allocate resources: Job violates accounting/QOS policy" >&2
exit 1
"""


def test_a_limit_on_jobs_loses_no_run(
    slurm: Cluster, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Slurm allows one job at a time, this job executes all runs."""
    put_into_path(tmp_path, monkeypatch, "srun", REFUSE.replace("{folder}", str(tmp_path)))
    found = executions(follow(runs_of([read(WHERE)], "size=2,3,4"), tmp_path / "runs", slots=3))
    assert [end.end for end in found] == ["completed"] * 3


def test_a_refused_job_fails_its_run(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """With Slurm's reason."""
    found = executions(
        follow(runs_of([read(WHERE)]), tmp_path / "runs", arguments=["--partition=none"])
    )
    assert [(end.machine_fault, end.reason) for end in found] == [
        (True, "Invalid partition name specified")
    ]


@pytest.mark.parametrize("arguments", [(), ("--slurm-args=--hold",)], ids=["runs", "waits"])
def test_a_killed_command_leaves_no_job(
    slurm: Cluster, sleeping: Path, arguments: Sequence[str]
) -> None:
    """Neither one that runs nor one that waits."""
    process = start(sleeping, "--gpus", "none", *arguments)
    wanted = "PENDING" if arguments else "RUNNING"
    assert eventually(lambda: slurm.states("pytorch-course") == {wanted}, PATIENCE_S)
    process.kill()
    finish(process)
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [], PATIENCE_S)


@pytest.mark.parametrize(
    ("arguments", "wanted"), [((), "RUNNING"), (("--slurm-args=--hold",), "PENDING")]
)
def test_an_interrupt_cancels_the_jobs(
    slurm: Cluster, sleeping: Path, arguments: Sequence[str], wanted: str
) -> None:
    """Those that wait, at once; those that run, with their runs. And says so."""
    process = start(sleeping, "--gpus=none", "--jobs=2", *arguments)
    assert eventually(lambda: len(slurm.jobs_of("pytorch-course")) == 2, PATIENCE_S)
    assert eventually(lambda: slurm.states("pytorch-course") == {wanted}, PATIENCE_S)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 1
    assert "this command's Slurm jobs are cancelled" in output
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [])
