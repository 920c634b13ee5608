"""Workers: what they tell, and what is left when they end, by any cause."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from ci.execute import engine, leases
from ci.execute.events import Execution, Finished, Started, Waiting
from ci.execute.local import LocalExecutor
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import memory, planner
from ci.plan.attempts import LOG, NOTEBOOK
from ci.plan.gpus import Gpu
from tests.conftest import HEADER, Read, Write, eventually, executions

pytestmark = pytest.mark.kernel

COLD_AND_WARM = [[], ["size=2,3"]]  # kernels are warm where a worker executes several runs
ORPHAN = "# %%\nimport subprocess\nsubprocess.Popen(['sleep', '{mark}'], start_new_session=True)\n"


def ends(lesson: Lesson, folder: Path, *settings: str, timeout_s: float = 60) -> list[Execution]:
    """The ends of the runs of `lesson`."""
    runs = planner.runs([lesson], settings, [], timeout_s=timeout_s)
    return executions(runs, folder)


def notebook(end: Execution) -> NotebookNode:
    """What a run has executed."""
    assert end.notebook, end.reason
    return nbformat.read(end.notebook, as_version=4)


def sleepers(mark: str) -> list[int]:
    """Processes `sleep MARK`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.info["cmdline"] == ["sleep", mark]:
                found.append(process.pid)
    return found


def test_a_run_ends_with_its_notebook_and_environment(read: Read, tmp_path: Path) -> None:
    """The attempt holds what was executed; the end says by what."""
    end = ends(read(), tmp_path / "runs")[0]
    assert (end.end, end.reason) == ("completed", "")
    assert (end.attempt / NOTEBOOK).exists()
    assert end.environment["torch"].startswith("2.13.0")


def test_a_sweep_shares_a_worker_and_not_an_attempt(read: Read, tmp_path: Path) -> None:
    """Each run has a folder of its own."""
    first, second = ends(read(), tmp_path / "runs", "size=2,3")
    assert first.attempt != second.attempt


def test_what_a_lesson_prints_past_the_notebook_is_in_its_log(read: Read, tmp_path: Path) -> None:
    """Output of the process itself, as of a C library, goes to the attempt's log."""
    end = ends(read("# %%\nimport os; os.system('echo from a child')\n"), tmp_path / "runs")[0]
    assert "from a child" in (end.attempt / LOG).read_text()


def test_a_hanging_lesson_ends_at_its_deadline(read: Read, tmp_path: Path) -> None:
    """It is timed out, at the cell that hangs."""
    began = time.monotonic()
    end = ends(read("# %%\nimport time; time.sleep(600)\n"), tmp_path / "runs", timeout_s=3)[0]
    assert (end.end, end.cell, end.reason) == ("timed out", "cell-4", "not done within 3 s")
    assert time.monotonic() - began < 30


def test_the_next_run_goes_on_after_a_timeout(read: Read, tmp_path: Path) -> None:
    """One bad run does not take the others along."""
    cells = "# %%\nimport time; time.sleep(600 if size == 2 else 0)\n"
    statuses = [end.end for end in ends(read(cells), tmp_path / "runs", "size=2,3", timeout_s=4)]
    assert statuses == ["timed out", "completed"]


@pytest.mark.parametrize("settings", COLD_AND_WARM)
@pytest.mark.parametrize("ending", ["", "import os; os.kill(os.getpid(), 9)", "1 / 0"])
def test_nothing_of_a_run_is_left(
    read: Read, tmp_path: Path, ending: str, settings: list[str]
) -> None:
    """Children in sessions of their own end with the run, however it ends."""
    mark = f"600.{os.getpid()}"
    ends(read(ORPHAN.format(mark=mark) + f"# %%\n{ending}\n"), tmp_path / "runs", *settings)
    assert sleepers(mark) == []


def test_a_killed_worker_fails_its_run_and_leaves_nothing(read: Read, tmp_path: Path) -> None:
    """The run fails and says so, the next one goes on in a new worker, and no child survives."""
    mark = f"601.{os.getpid()}"
    kill = (
        "# %%\nimport psutil, time\n"
        "parents = psutil.Process().parents()\n"
        "worker = next(p for p in parents if 'ci.worker.server' in p.cmdline())\n"
        "if size == 2: worker.kill()\n"
        "time.sleep(0.5)\n"
    )
    first, second = ends(read(ORPHAN.format(mark=mark) + kill), tmp_path / "runs", "size=2,3")
    assert (first.end, first.reason) == ("failed", "its worker was killed by SIGKILL")
    assert second.end == "completed"
    assert eventually(lambda: sleepers(mark) == [])


def test_kernels_of_one_worker_are_warm(read: Read, tmp_path: Path) -> None:
    """What a lesson is about to import has been imported already; alone, it imports for itself."""
    lesson = read("# %%\nimport sys; 'torch' in sys.modules\n")
    shown = {
        end.run.label: notebook(end).cells[-1].outputs[0].data["text/plain"]
        for settings in COLD_AND_WARM
        for end in ends(lesson, tmp_path / "runs", *settings)
    }
    assert shown == {"": "False", "size=2": "True", "size=3": "True"}


def test_several_lessons_share_a_worker(write: Write, tmp_path: Path) -> None:
    """And its kernels' parent."""
    cells = "# %%\nimport os; os.getppid()\n"
    lessons = [reader.read(write(cells, name=name)) for name in ("01_one", "02_two")]
    found = executions(planner.runs(lessons, [], []), tmp_path / "runs")
    done = [notebook(execution) for execution in found]
    first, second = (book.cells[-1].outputs[0].data["text/plain"] for book in done)
    assert first == second


@pytest.mark.parametrize(
    ("number", "reasons"),
    [
        (9, ["its kernel was lost with the fork server, which has died", ""]),
        (signal.SIGSTOP, ["", ""]),
    ],
)
def test_kernels_get_a_new_parent(
    read: Read, tmp_path: Path, number: int, reasons: list[str]
) -> None:
    """Where a lesson ends the parent of its kernel, it fails; where it stops it, nothing hangs."""
    mark = f"603.{os.getpid()}"
    fault = f"# %%\nimport os, time\nif size == 2: os.kill(os.getppid(), {number})\ntime.sleep(1)\n"
    found = ends(read(ORPHAN.format(mark=mark) + fault), tmp_path / "runs", "size=2,3")
    assert [end.reason for end in found] == reasons
    assert sleepers(mark) == []


@pytest.fixture(params=COLD_AND_WARM)
def hanging(
    read: Read, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that runs a lesson which started `sleep MARK` and hangs; it and the mark."""
    mark = f"602.{os.getpid()}"
    lesson = read(ORPHAN.format(mark=mark) + "# %%\nimport time; time.sleep(600)\n")
    program = (
        "from pathlib import Path; from ci.execute import engine\n"
        "from ci.execute.local import LocalExecutor\n"
        "from ci.lesson import reader; from ci.plan import planner\n"
        f"runs = planner.runs([reader.read(Path({str(lesson.path)!r}))], {request.param}, [])\n"
        f"list(engine.execute(runs, Path({str(tmp_path / 'runs')!r}), LocalExecutor()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    assert eventually(lambda: sleepers(mark), 60)
    yield process, mark
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_pipeline_leaves_nothing(
    hanging: tuple[subprocess.Popen[bytes], str], number: signal.Signals
) -> None:
    """Interrupted or killed: worker, kernel and the lesson's children end."""
    process, mark = hanging
    process.send_signal(number)
    process.wait(30)
    assert eventually(lambda: sleepers(mark) == [], 20)


def test_a_lesson_that_changed_while_it_waited_is_not_run(read: Read, tmp_path: Path) -> None:
    """What is judged is what was read; a text that was saved since then is another lesson."""
    lesson = read()
    runs = planner.runs([lesson], [], [])
    lesson.path.write_text(lesson.path.read_text() + "# %%\n1\n")
    (end,) = executions(runs, tmp_path / "runs")
    assert (end.end, "was changed while it waited" in end.reason) == ("failed", True)


class OnGpus(LocalExecutor):
    """This machine, as one whose torch can use GPUs: the lessons of these tests don't."""

    provenance: Mapping[str, str] = {"cuda": "13.0"}


GPUS = [Gpu(str(i), f"GPU-{i}", "A GPU") for i in range(3)]
LOG_LEASE = """\
# %%
import os, time
began = time.time()
time.sleep(0.3)
with open({path!r}, "a") as file:
    print(os.environ["CUDA_VISIBLE_DEVICES"], began, time.time(), file=file)
"""
INVOCATION = """\
from pathlib import Path
from ci.execute import engine, leases
from ci.lesson import reader
from ci.plan import planner
from tests.execute.test_engine import GPUS, OnGpus
leases.FOLDER = Path({folder!r})
runs = planner.runs([reader.read(Path({lesson!r}))], ["size=2,3,4,5,6"], GPUS)
list(engine.execute(runs, Path({folder!r}) / "runs", OnGpus(), slots=3, gpus=GPUS))
"""


def overlaps(path: Path) -> list[tuple[str, str]]:
    """Pairs of runs that had a GPU in common at one time."""
    rows = [line.split() for line in path.read_text().splitlines()]
    spans = [(gpus, float(began), float(ended)) for gpus, began, ended in rows]
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(spans, 2)
        if {*one[0].split(",")} & {*other[0].split(",")}
        and max(one[1], other[1]) < min(one[2], other[2])
    ]


def test_two_invocations_never_give_a_gpu_to_two_runs(read: Read, tmp_path: Path) -> None:
    """One has runs of one GPU, the other of two, at the same time, on three; all are run."""
    log, code = tmp_path / "log", []
    for name, most in (("01_small", 1), ("02_large", 2)):
        header = HEADER.replace("max: 1}", f"max: {most}}}", 1)
        lesson = read(LOG_LEASE.format(path=str(log)), header=header, name=name)
        code.append(INVOCATION.format(folder=str(tmp_path), lesson=str(lesson.path)))
    both = [subprocess.Popen([sys.executable, "-c", text]) for text in code]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(log.read_text().splitlines()) == 10
    assert overlaps(log) == []
    assert {len(line.split()[0].split(",")) for line in log.read_text().splitlines()} == {1, 2}


def test_runs_of_one_gpu_go_on_side_by_side(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a slot and on a GPU of its own."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    runs = planner.runs([read()], ["size=2,3,4"], GPUS)
    events = list(engine.execute(runs, tmp_path / "runs", OnGpus(), slots=3, gpus=GPUS))
    started = [event for event in events if isinstance(event, Started)]
    assert {event.slot for event in started} == {0, 1, 2}
    assert {event.gpus for event in started} == {(gpu,) for gpu in GPUS}


def test_a_run_says_that_it_waits_for_others(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the other invocation gives its GPU back."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    theirs = leases.GpuPool(GPUS[:1]).lease(GPUS[:1])
    assert theirs
    runs = planner.runs([read()], [], GPUS[:1])
    kinds = []
    for event in engine.execute(runs, tmp_path / "runs", OnGpus(), gpus=GPUS[:1]):
        kinds.append(type(event))
        theirs.close()
    assert kinds[0] is Waiting
    assert kinds[-1] is Finished


HUNGRY = "# %%\nimport time\nx = b'1' * (2**31 if size == 4 else 1)\ntime.sleep(5)\n"


def test_the_run_that_takes_all_memory_is_ended(read: Read, tmp_path: Path) -> None:
    """The machine is to keep all but 1.5 GiB: one run takes 2 and is ended, the other goes on."""
    keep = memory.available() - 3 * memory.GIB // 2
    runs = planner.runs([read(HUNGRY)], ["size=2,4"], [], timeout_s=60)
    events = engine.execute(runs, tmp_path / "runs", LocalExecutor(), slots=2, reserve=keep)
    ends = [event.execution for event in events if isinstance(event, Finished)]
    ended = {end.run.label: end for end in ends}
    assert ended["size=2"].end == "completed"
    assert ended["size=4"].end == "failed"
    assert ended["size=4"].reason.startswith("out of memory: it used ")
