"""Jobs of a real Slurm cluster that end before their runs."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ci.execute.events import Event, Waiting
from ci.execute.slurm.executor import SlurmExecutor
from ci.lesson import reader
from tests.conftest import Read, eventually, write_lesson
from tests.slurm.cluster import Cluster
from tests.slurm.runs import (
    SLEEP,
    WHERE,
    executions,
    follow,
    once,
    runs_of,
)

pytestmark = pytest.mark.kernel


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


@pytest.fixture(scope="module", autouse=True)
def _begin(request: pytest.FixtureRequest) -> None:
    """Begin with the run that takes longest, if its test is selected."""
    if any("out_of_time" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("out_of_time")


def test_a_killed_run_fails_alone(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """The next run uses the same job."""
    kill = "# %%\nif size == 2: os.kill(os.getppid(), 9); input()\n"
    runs = runs_of([read(WHERE + kill)], "size=2,3")
    first, second = executions(follow(runs, tmp_path / "runs"))
    assert first.reason == "its process was killed by SIGKILL"
    assert second.end == "completed"
    assert first.environment["Slurm job"] == second.environment["Slurm job"]


def test_a_run_on_a_lost_node_is_executed_once_more(
    slurm: Cluster, read: Read, tmp_path: Path
) -> None:
    """On another node, in a new attempt."""
    runs = runs_of([read(WHERE + once(tmp_path / "mark"))])
    lost: list[str] = []

    def lose(where: SlurmExecutor) -> None:
        assert eventually((tmp_path / "mark").exists)
        lost.append(slurm.ask("squeue", "-h", f"--jobs={slurm.last_job()}", "-o", "%N"))
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


def test_a_preempted_run_is_executed_once_more(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """When its node is free again."""
    runs = runs_of([read(WHERE + once(tmp_path / "mark"))])

    def preempt(where: SlurmExecutor) -> None:
        assert eventually((tmp_path / "mark").exists)
        slurm.preempt("n1")

    events = follow(runs, tmp_path / "runs", preempt, arguments=["-w", "n1"])
    (end,) = executions(events)
    assert end.end == "completed", end.reason
    *_, waiting = [event.reason for event in events if isinstance(event, Waiting)]
    assert waiting.endswith("it was preempted")


def test_a_job_that_is_cancelled_fails_its_run(slurm: Cluster, read: Read, tmp_path: Path) -> None:
    """It is the machine's fault; the next run gets a job of its own."""
    runs = runs_of([read(SLEEP.format(seconds="600 if size == 2 else 0"))], "size=2,3")
    events = follow(runs, tmp_path / "runs", lambda _: slurm.ask("scancel", slurm.last_job()))
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


def kill_srun(_: SlurmExecutor) -> None:
    """Kill the srun of the only job, beside the one that is out of time."""
    sruns = [p for p in psutil.Process().children() if p.name() == "srun"]
    (srun,) = [p for p in sruns if "--job-name=limit" not in p.cmdline()]
    srun.kill()


def test_a_job_that_reaches_its_time_limit_fails_its_run(
    slurm: Cluster, out_of_time: Future[list[Event]]
) -> None:
    """The reason says how to get more time."""
    (end,) = executions(out_of_time.result(timeout=120))
    assert end.machine_fault
    assert end.reason.endswith("reached its time limit: use --slurm-args=--time=…")
