"""`--detach` on a real Slurm cluster: job arrays execute runs, and later commands collect them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import GRADIENT, ORACLE, eventually, write_lesson
from tests.slurm.cluster import Cluster
from tests.slurm.runs import PATIENCE_S, finish, once, put_into_path, start, wait_for, write_course

pytestmark = pytest.mark.kernel


def detach(course: Path, *words: str) -> tuple[int, str]:
    """Status and output of `invoke run --on slurm --detach`."""
    return finish(start(course, "--detach", "--gpus=none", "--handouts=none", *words))


def start_and_wait(course: Path, *words: str) -> subprocess.Popen[str]:
    """A command that waits for detached runs, of which it has found one in progress."""
    process = start(course, "--gpus=none", "--handouts=none", *words)
    assert process.stdout
    assert "started in Slurm job" in process.stdout.readline()
    return process


def wait_for_jobs(slurm: Cluster) -> None:
    """Wait until no job is left."""
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [], PATIENCE_S)


def events(course: Path) -> str:
    """All that tasks have told."""
    return "".join(path.read_text() for path in course.glob("build/detached/*/events/*"))


def wait_until_running(slurm: Cluster, course: Path) -> None:
    """Wait until a task has started to execute a cell."""
    assert eventually(lambda: '"event": "cell"' in events(course), PATIENCE_S)


def attempts(course: Path) -> list[Path]:
    """The attempts of all runs that were kept."""
    return [*(course / "build/runs").glob("*/*/*/")]


def test_the_command_ends_at_once_and_the_next_one_collects(slurm: Cluster, course: Path) -> None:
    """Nothing is executed twice; the report names the tasks; no file is left."""
    status, output = detach(course)
    assert status == 4, output
    assert output.count("submitted") >= 2
    wait_for_jobs(slurm)
    status, output = detach(course)
    assert status == 0, output
    runs = json.loads((course / "build/report.json").read_text())["runs"]
    assert all(run["environment"]["Slurm job"] for run in runs)
    assert len(attempts(course)) == 2
    assert [*(course / "build/detached").iterdir()] == []


def test_an_attached_command_waits_for_detached_runs(slurm: Cluster, course: Path) -> None:
    """And publishes the handouts."""
    detach(course)
    status, output = finish(start(course, "--gpus", "none"))
    assert status == 0, output
    assert (course / "build/handouts/index.html").exists()
    assert len(attempts(course)) == 2


def test_what_is_not_done_is_not_published(slurm: Cluster, sleeping: Path) -> None:
    """The report says where each run is."""
    detach(sleeping, "--jobs=1")
    wait_until_running(slurm, sleeping)
    status, _ = detach(sleeping)
    slurm.ask("scancel", "--name=pytorch-course")
    assert status == 4
    first, second = json.loads((sleeping / "build/report.json").read_text())["runs"]
    assert {first["status"], second["status"]} == {"submitted"}
    assert "runs on n" in first["reason"] + second["reason"]
    assert "queued in Slurm job" in first["reason"] + second["reason"]
    assert not (sleeping / "build/handouts").exists()


def test_a_job_that_is_cancelled_fails_its_runs(slurm: Cluster, sleeping: Path) -> None:
    """Those that ran and those that waited; the next command submits them again."""
    detach(sleeping, "--jobs=1")
    wait_until_running(slurm, sleeping)
    slurm.ask("scancel", "--name=pytorch-course")
    wait_for_jobs(slurm)
    status, output = detach(sleeping)
    assert status == 3
    assert output.count("was cancelled") >= 2
    status, _ = detach(sleeping)
    slurm.ask("scancel", "--name=pytorch-course")
    assert status == 4


def test_a_run_on_a_lost_node_is_executed_once_more(slurm: Cluster, tmp_path: Path) -> None:
    """By another task, in a new attempt."""
    course = write_course(tmp_path)
    cells = GRADIENT + once(tmp_path / "mark")
    write_lesson(course, cells, expected=ORACLE, name="01_one")
    detach(course, "--lessons=01", "--slurm-args=-x n3")
    assert eventually((tmp_path / "mark").exists, PATIENCE_S)
    node = slurm.ask("squeue", "-h", "--name=pytorch-course", "-o", "%N")
    slurm.lose(node)
    slurm.notice_loss(node)
    try:
        status, output = finish(
            start(course, "--lessons=01", "--gpus=none", "--handouts=none", "--slurm-args=-x n3")
        )
    finally:
        slurm.start_node(node)
    assert status == 0, output
    assert "to execute again: Slurm job" in output


def test_a_preempted_run_is_executed_once_more(slurm: Cluster, tmp_path: Path) -> None:
    """By this command's next array, and not by Slurm, which would run a task twice."""
    course = write_course(tmp_path)
    write_lesson(course, GRADIENT + once(tmp_path / "mark"), expected=ORACLE, name="01_one")
    words = "--lessons=01", "--slurm-args=-w n1"
    detach(course, *words)
    assert eventually((tmp_path / "mark").exists, PATIENCE_S)
    slurm.preempt("n1")
    status, output = finish(start(course, "--gpus=none", "--handouts=none", *words))
    assert status == 0, output
    assert "it was preempted" in output


def test_an_array_is_as_large_as_the_cluster_allows(slurm: Cluster, course: Path) -> None:
    """Ten tasks here, for twelve runs."""
    sizes = "size=" + ",".join(map(str, range(2, 14)))
    detach(course, "--lessons=01", f"-p{sizes}", "--jobs=12", "--slurm-args=--hold")
    tasks = slurm.ask("squeue", "-h", "-r", "--name=pytorch-course", "-o", "%i").splitlines()
    slurm.ask("scancel", "--name=pytorch-course")
    assert len(tasks) == 10


REFUSE = """\
case "$*" in *--array=0-[1-9]*)
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
    exit 1
esac
exec {real} "$@"
"""


def test_a_limit_on_jobs_makes_the_array_smaller(
    slurm: Cluster, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Slurm allows one task, this task executes all runs."""
    put_into_path(tmp_path, monkeypatch, "sbatch", REFUSE)
    assert detach(course)[0] == 4
    wait_for_jobs(slurm)
    status, output = detach(course)
    assert status == 0, output
    runs = json.loads((course / "build/report.json").read_text())["runs"]
    assert len({run["environment"]["Slurm job"] for run in runs}) == 1


@pytest.fixture
def waiting(course: Path) -> Path:
    """A course whose lesson 01 ends when there is a file with the name `mark`."""
    cells = GRADIENT + wait_for(course / "mark")
    write_lesson(course, cells, expected=ORACLE, name="01_one")
    return course


def test_a_controller_that_is_down_loses_nothing(slurm: Cluster, waiting: Path) -> None:
    """Tasks that have started need none; meanwhile a command says so in one line."""
    course = waiting
    detach(course, "--lessons=01")
    wait_until_running(slurm, course)
    slurm.kill("slurmctld")
    try:
        status, output = detach(course, "--lessons=01")
        (course / "mark").touch()
        assert eventually(lambda: '"ended"' in events(course), PATIENCE_S)
    finally:
        slurm.start_controller()
        slurm.wait_until_up()
    assert status == 3
    assert len(output.splitlines()) == 1, output
    status, output = detach(course, "--lessons=01")
    assert status == 0, output
    assert len(attempts(course)) == 1


def test_a_command_that_waits_survives_a_silent_controller(slurm: Cluster, waiting: Path) -> None:
    """Meanwhile the run ends; it is collected, and not executed again."""
    detach(waiting, "--lessons=01")
    wait_until_running(slurm, waiting)
    process = start_and_wait(waiting, "--lessons=01")
    with slurm.silent():
        (waiting / "mark").touch()
        time.sleep(7)  # commands of this cluster wait 5 s for an answer
    status, output = finish(process)
    assert status == 0, output
    assert len(attempts(waiting)) == 1


def test_an_interrupt_leaves_detached_runs(slurm: Cluster, sleeping: Path) -> None:
    """It says which jobs go on."""
    detach(sleeping)
    wait_until_running(slurm, sleeping)
    process = start_and_wait(sleeping)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    slurm.ask("scancel", "--name=pytorch-course")
    (path,) = sleeping.glob("build/detached/*/jobs.json")
    (job,) = json.loads(path.read_text())["jobs"]
    assert status == 1
    assert f"Slurm jobs {job} go on" in output


def test_clean_cancels_detached_runs(slurm: Cluster, sleeping: Path) -> None:
    """No job and no file is left."""
    detach(sleeping, "--slurm-args=--hold")
    subprocess.run([sys.executable, "-m", "invoke", "clean"], cwd=sleeping, check=True)
    wait_for_jobs(slurm)
    assert not (sleeping / "build/detached").exists()


def test_an_array_that_cannot_execute_anything_is_not_submitted_again(
    slurm: Cluster, course: Path
) -> None:
    """The command says where the reason is."""
    words = "--slurm-args=--export=PYTHONHOME=/nowhere"
    detach(course, words)
    wait_for_jobs(slurm)
    status, output = detach(course, words)
    assert status == 3
    assert "has ended and executed nothing: see" in output


@pytest.mark.parametrize("moment_s", [0.8, 1.5, 3])
def test_a_command_that_is_killed_loses_nothing(
    slurm: Cluster, course: Path, moment_s: float
) -> None:
    """The next one finds what it has submitted, and submits the rest."""
    process = start(course, "--detach", "--gpus=none", "--handouts=none")
    time.sleep(moment_s)
    process.kill()
    finish(process)
    detach(course)
    wait_for_jobs(slurm)
    status, output = detach(course)
    assert status == 0, output
    assert len(attempts(course)) == 2
