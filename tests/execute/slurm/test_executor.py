"""A course on a real Slurm cluster: one controller and three nodes on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ci.execute import server_client
from ci.execute.slurm import cluster
from ci.plan import gpus, planner
from tests.conftest import HEADER, ORACLE, Read, eventually, write_lesson
from tests.slurm.cluster import NODES, Cluster
from tests.slurm.runs import (
    PATIENCE_S,
    executions,
    finish,
    follow,
    printed,
    start,
)

pytestmark = pytest.mark.kernel


def test_a_course_is_executed_by_jobs(slurm: Cluster, course: Path) -> None:
    """Reports and handouts say which job executed a lesson, on which node; no job is left."""
    status, output = finish(start(course, "--jobs", "1", "--gpus", "none"))
    assert status == 0, output
    report = json.loads((course / "build/report.json").read_text())
    jobs = [run["environment"]["Slurm job"] for run in report["runs"]]
    assert len(jobs) == 2
    assert len(set(jobs)) == 1, "the lessons share a job"
    assert jobs[0] in (course / "build/handouts/en/01_one.html").read_text()
    assert slurm.jobs_of("pytorch-course") == []


def test_six_runs_get_six_different_gpus(
    slurm: Cluster, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, on nodes with two GPUs each."""
    monkeypatch.setattr(server_client, "require_cuda", lambda run, environment: None)
    show = "print(os.environ['SLURMD_NODENAME'], os.environ['CUDA_VISIBLE_DEVICES'])"
    wait = "import pathlib, time\nhere = pathlib.Path(r'{folder}')\n(here / str(size)).touch()\n"
    wait += "while len(list(here.iterdir())) < 6: time.sleep(0.1)\n"
    (tmp_path / "started").mkdir()
    cells = f"# %%\nimport os\n{show}\n# %%\n{wait.format(folder=tmp_path / 'started')}"
    granted = cluster.find().grant(gpus.parse("1"))
    runs = planner.runs([read(cells)], ["size=2,3,4,5,6,7"], granted, timeout_s=90, threads=1)
    found = [printed(end) for end in executions(follow(runs, tmp_path / "runs", slots=6))]
    assert sorted(found) == [f"{node} {index}" for node in NODES for index in (0, 1)]


def test_more_gpus_than_any_node_has_are_refused(slurm: Cluster, course: Path) -> None:
    """In one line, and before anything is submitted."""
    status, output = finish(start(course, "--gpus", "3"))
    assert status == 3
    assert output.startswith("--gpus 3: no node of this cluster that is up has more than 2 GPUs")
    assert len(output.splitlines()) == 1


def test_a_lesson_that_needs_more_gpus_than_any_node_has_is_skipped(
    slurm: Cluster, course: Path
) -> None:
    """Without a job; its status says how many it needs."""
    header = HEADER.replace("{min: 0, max: 1}", "{min: 3, max: 4}")
    for name in ("01_one", "02_two"):
        write_lesson(course, header=header, expected=ORACLE, name=name)
    before = slurm.last_job()
    status, output = finish(start(course))
    assert status == 0, output
    assert output.count("needs 3 GPUs") >= 2
    assert slurm.last_job() == before


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("--partition=none", "invalid partition specified: none"),
        ("--no-such-option", "unrecognized option"),
        ("'", "No closing quotation"),
    ],
)
def test_arguments_that_srun_refuses_are_one_line(
    slurm: Cluster, course: Path, arguments: str, fault: str
) -> None:
    """The command line is at fault."""
    status, output = finish(start(course, f"--slurm-args={arguments}"))
    assert status == 2
    assert fault in output
    assert len(output.splitlines()) == 1


def test_the_doctor_tries_a_job(slurm: Cluster, course: Path) -> None:
    """It says what the cluster has, and what a node sees."""
    command = [sys.executable, "-m", "invoke", "doctor", "--on", "slurm"]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    words = " ".join(done.stdout.split())
    assert "3 nodes that are up, with 24 cores" in words
    assert "6 in all; a run gets at most 2 x a100, of one node" in words
    assert "sees this directory" in words


def test_no_run_depends_on_accounting(slurm: Cluster) -> None:
    """The cluster of these tests has none."""
    assert (
        "disabled"
        in subprocess.run(["sacct"], env=slurm.environment, capture_output=True, text=True).stderr
    )


def test_a_sweep_that_is_killed_goes_on_where_it_was(slurm: Cluster, course: Path) -> None:
    """Nothing that had finished is executed twice, and nothing is lost."""
    sizes = "-psize=" + ",".join(map(str, range(2, 14)))
    words = "--lessons=01", sizes, "--jobs=2", "--gpus=none", "--handouts=none"
    records = course / "build/records/01_one"
    process = start(course, *words)
    assert eventually(lambda: len([*records.glob("*/*.json")]) >= 3, PATIENCE_S)
    process.kill()
    finish(process)
    before = {*records.glob("*/*.json")}
    status, output = finish(start(course, *words))
    assert status == 0, output
    after = {*records.glob("*/*.json")}
    assert before < after
    assert len(after) == 12
    assert {path.stem for path in after} <= {path.name for path in course.glob("build/runs/*/*/*/")}
