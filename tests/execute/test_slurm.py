"""Runs as jobs of a real Slurm cluster: one controller and three nodes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from ci.execute import cluster, engine, server_client
from ci.execute.events import CellStarted, Event, Execution, Finished, Waiting
from ci.execute.slurm import SlurmExecutor
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import gpus, planner
from ci.plan.planner import Run
from tests.conftest import HEADER, ORACLE, ROOT, Read, eventually, write_lesson
from tests.slurm.cluster import NODES, Cluster

pytestmark = pytest.mark.kernel

WHERE = "# %%\nimport os\nprint(os.environ['SLURM_JOB_ID'], os.environ['SLURMD_NODENAME'])\n"
SLEEP = WHERE + "# %%\nimport time\ntime.sleep({seconds})\n"


def runs_of(lessons: Sequence[Lesson], *settings: str, timeout_s: float = 60) -> list[Run]:
    """The runs of these lessons without GPUs, with one thread each."""
    return planner.runs(lessons, settings, [], timeout_s=timeout_s, threads=1)


def follow(
    runs: Sequence[Run],
    folder: Path,
    act: Callable[[SlurmExecutor], object] = lambda where: None,
    *,
    slots: int = 1,
    arguments: Sequence[str] = (),
) -> list[Event]:
    """The events of `runs`; `act` is called once, when a run reaches its last cell."""
    where = SlurmExecutor(arguments)
    seen: list[Event] = []
    acted = False
    for event in engine.execute(runs, folder, where, slots=slots):
        seen.append(event)
        if not acted and isinstance(event, CellStarted) and event.cell == event.cells - 1:
            acted = True
            act(where)
    return seen


def executions(events: Sequence[Event]) -> list[Execution]:
    """The executions among events."""
    return [event.execution for event in events if isinstance(event, Finished)]


def printed(execution: Execution) -> str:
    """What a lesson printed."""
    assert execution.notebook, execution.reason
    cells = nbformat.read(execution.notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if "text" in output).strip()


@pytest.fixture(scope="module")
def out_of_time(
    slurm_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[list[Event]]]:
    """The events of a run that is longer than its job, which ends beside the other tests."""
    folder = tmp_path_factory.mktemp("limit")
    lesson = reader.read(write_lesson(folder, SLEEP.format(seconds=600)))
    runs = runs_of([lesson], timeout_s=300)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(
            follow, runs, folder / "runs", arguments=["--job-name=limit", "--time=1", "-w", "n3"]
        )


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of two lessons with the project's tasks."""
    shutil.copy(ROOT / "tasks.py", tmp_path)
    for name in ("01_one", "02_two"):
        write_lesson(tmp_path, expected=ORACLE, name=name)
    return tmp_path


@pytest.fixture
def sleeping(tmp_path: Path) -> Path:
    """A course of two lessons that do not end."""
    shutil.copy(ROOT / "tasks.py", tmp_path)
    for name in ("01_one", "02_two"):
        write_lesson(tmp_path, SLEEP.format(seconds=600), name=name)
    return tmp_path


def start(course: Path, *words: str) -> subprocess.Popen[str]:
    """`invoke run --on slurm` in a process of its own."""
    command = [sys.executable, "-m", "invoke", "run", "--on", "slurm", *words]
    return subprocess.Popen(
        command, cwd=course, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.fixture(scope="module", autouse=True)
def _begin(request: pytest.FixtureRequest) -> None:
    """Begin with the run that takes longest, if its test is selected."""
    if any("out_of_time" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("out_of_time")


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
    monkeypatch.setattr(server_client, "_require_cuda", lambda run, environment: None)
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


def test_a_killed_run_fails_alone(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """The next run uses the same job."""
    kill = "# %%\nif size == 2: os.kill(os.getppid(), 9); input()\n"
    runs = runs_of([read(WHERE + kill)], "size=2,3")
    first, second = executions(follow(runs, tmp_path / "runs"))
    assert first.reason == "its process was killed by SIGKILL"
    assert second.end == "completed"
    assert first.environment["Slurm job"] == second.environment["Slurm job"]


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


def test_a_run_on_a_lost_node_is_executed_once_more(
    slurm: Cluster, read: Read, tmp_path: Path
) -> None:
    """On another node, in a new attempt."""
    once = "# %%\nimport pathlib, time\nmark = pathlib.Path(r'{mark}')\n"
    once += "if not mark.exists():\n    mark.touch()\n    time.sleep(600)\n"
    runs = runs_of([read(WHERE + once.format(mark=tmp_path / "mark"))])
    lost: list[str] = []

    def lose(where: SlurmExecutor) -> None:
        assert eventually((tmp_path / "mark").exists)
        lost.append(slurm.ask("squeue", "-h", f"--jobs={where.jobs[0]}", "-o", "%N"))
        slurm.lose(lost[0])

    try:
        events = follow(runs, tmp_path / "runs", lose, arguments=["-x", "n3"])
    finally:
        slurm.start_node(lost[0])
    (end,) = executions(events)
    assert end.end == "completed", end.reason
    assert lost[0] not in end.environment["Slurm job"]
    *_, waiting = [event.reason for event in events if isinstance(event, Waiting)]
    assert waiting.endswith("Slurm lost its node")


def test_a_job_that_is_cancelled_fails_its_run(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """It is the machine's fault; the next run gets a job of its own."""
    runs = runs_of([read(SLEEP.format(seconds="600 if size == 2 else 0"))], "size=2,3")
    events = follow(runs, tmp_path / "runs", lambda where: slurm.ask("scancel", where.jobs[0]))
    first, second = executions(events)
    assert first.machine_fault
    assert first.reason.startswith("Slurm job ")
    assert first.reason.endswith("was cancelled")
    assert second.end == "completed"


def test_a_job_that_uses_too_much_memory_fails_its_run(
    slurm: Cluster, read: Read, tmp_path: Path
) -> None:
    """The reason names the limit."""
    hog = "# %%\nimport time\nhog = b'x' * 2**30\ntime.sleep(20)\n"
    runs = runs_of([read(hog)])
    (end,) = executions(follow(runs, tmp_path / "runs", arguments=["--mem=1800M"]))
    assert end.machine_fault
    assert "ran out of memory (--mem=1800M)" in end.reason


def test_a_killed_srun_fails_its_run(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """Its job ends, too."""
    runs = runs_of([read(SLEEP.format(seconds=600))])
    events = follow(runs, tmp_path / "runs", kill_srun)
    (end,) = executions(events)
    assert end.machine_fault
    assert "was killed by SIGKILL" in end.reason
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [])


def kill_srun(where: SlurmExecutor) -> None:
    """Kill the srun of the executor's job."""
    (job,) = where._jobs
    job._process.kill()


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
            slurm.ask("scontrol", "release", where.jobs[0])
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
#!/bin/sh
mkdir {folder}/first 2> /dev/null && exec {srun} "$@"
echo "srun: error: Unable to allocate resources: Job violates accounting/QOS policy" >&2
exit 1
"""


def test_a_limit_on_jobs_loses_no_run(
    slurm: Cluster, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Slurm allows one job at a time, this job executes all runs."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/srun"
    program.write_text(REFUSE.format(folder=tmp_path, srun=shutil.which("srun")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
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
    assert eventually(lambda: slurm.states("pytorch-course") == {wanted}, 20)
    process.kill()
    finish(process)
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [], 20)


def test_an_interrupt_cancels_the_jobs(slurm: Cluster, sleeping: Path) -> None:
    """And says which."""
    process = start(sleeping, "--gpus=none", "--jobs=2", "--slurm-args=--hold")
    assert eventually(lambda: len(slurm.jobs_of("pytorch-course")) == 2, 20)
    jobs = slurm.jobs_of("pytorch-course")
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 1
    assert f"cancelled 2 Slurm jobs: {', '.join(sorted(jobs, key=int))}" in output
    assert eventually(lambda: slurm.jobs_of("pytorch-course") == [])


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


def test_a_job_that_reaches_its_time_limit_fails_its_run(
    slurm: Cluster, out_of_time: Future[list[Event]]
) -> None:
    """The reason says how to get more time."""
    (end,) = executions(out_of_time.result(timeout=120))
    assert end.machine_fault
    assert end.reason.endswith("reached its time limit: use --slurm-args=--time=…")
