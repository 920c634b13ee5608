"""The engine: what it reports about runs, and what is left of them afterwards."""

import ast
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

from ci.execute import engine, leases, local, server_client
from ci.execute.events import Execution, Finished, Started, Waiting
from ci.execute.local import LocalExecutor
from ci.execute.servers import Servers
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import memory, planner
from ci.plan.attempts import LOG, NOTEBOOK
from ci.plan.gpus import Gpu
from tests.conftest import HEADER, Read, eventually, executions, write_lesson

pytestmark = pytest.mark.kernel

ORPHAN = "# %%\nimport subprocess\nsubprocess.Popen(['sleep', '{mark}'], start_new_session=True)\n"


def execute(lesson: Lesson, folder: Path, *settings: str, timeout_s: float = 60) -> list[Execution]:
    """The executions of the runs of `lesson`."""
    runs = planner.runs([lesson], settings, [], timeout_s=timeout_s)
    return executions(runs, folder)


def notebook(end: Execution) -> NotebookNode:
    """The executed notebook."""
    assert end.notebook, end.reason
    return nbformat.read(end.notebook, as_version=4)


def sleepers(mark: str) -> list[int]:
    """The ids of the processes `sleep MARK`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.info["cmdline"] == ["sleep", mark]:
                found.append(process.pid)
    return found


SPEAKING = """\
# %%
import os, psutil; os.system('echo from a child')
# %%
[parent.pid for parent in psutil.Process().parents()]
"""


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """The execution of a single run."""
    folder = tmp_path_factory.mktemp("single")
    (found,) = execute(reader.read(write_lesson(folder, SPEAKING)), folder / "runs")
    return found


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[Execution]:
    """The executions of two runs of each of two lessons."""
    folder = tmp_path_factory.mktemp("several")
    lessons = [reader.read(write_lesson(folder, SPEAKING, name=n)) for n in ("01_one", "02_two")]
    return executions(planner.runs(lessons, ["size=2,3"], []), folder / "runs")


def parents(execution: Execution) -> list[int]:
    """The processes above the kernel: the run's own, the fork server, and so on."""
    output = notebook(execution).cells[-1].outputs[0].data["text/plain"]
    return list(ast.literal_eval(output))


def test_a_run_ends_with_its_notebook_and_environment(single: Execution) -> None:
    """The notebook is in the attempt."""
    assert (single.end, single.reason) == ("completed", "")
    assert (single.attempt / NOTEBOOK).exists()
    assert single.environment["torch"].startswith("2.13.0")


def test_each_run_has_its_own_attempt(several: list[Execution]) -> None:
    """Although all runs share a fork server."""
    assert len({execution.attempt for execution in several}) == 4


def test_output_that_bypasses_the_notebook_is_in_the_log(single: Execution) -> None:
    """For example, the output of a C library."""
    assert "from a child" in (single.attempt / LOG).read_text()


def test_all_runs_share_a_fork_server(several: list[Execution]) -> None:
    """Those of other lessons too; each has a process of its own below it."""
    own, server = zip(*(parents(execution)[:2] for execution in several), strict=True)
    assert (len({*own}), len({*server})) == (4, 1)


def test_a_hanging_lesson_ends_at_its_deadline(read: Read, tmp_path: Path) -> None:
    """It is timed out, at the cell that hangs."""
    began = time.monotonic()
    end = execute(read("# %%\nimport time; time.sleep(600)\n"), tmp_path / "runs", timeout_s=3)[0]
    assert (end.end, end.cell, end.reason) == ("timed out", "cell-4", "not done within 3 s")
    assert time.monotonic() - began < 30


def test_a_timeout_does_not_affect_the_next_run(read: Read, tmp_path: Path) -> None:
    """One hanging run does not stop the others."""
    cells = "# %%\nimport time; time.sleep(600 if size == 2 else 0)\n"
    statuses = [end.end for end in execute(read(cells), tmp_path / "runs", "size=2,3", timeout_s=4)]
    assert statuses == ["timed out", "completed"]


ENDINGS = ["pass", "os.kill(os.getpid(), 9)", "1 / 0"]


def left(read: Read, folder: Path, *settings: str) -> list[int]:
    """The children that runs of a lesson leave; with size=2, 3 and 4 it has these endings."""
    mark = f"600.{os.getpid()}"
    ending = f"# %%\nimport os\nexec({ENDINGS}[size - 2])\n"
    ends = execute(read(ORPHAN.format(mark=mark) + ending), folder, *settings)
    assert {end.end for end in ends} <= {"completed", "failed"}
    return sleepers(mark)


@pytest.mark.parametrize("size", [2, 3, 4], ids=["completed", "killed", "failed"])
def test_no_process_of_a_run_is_left(read: Read, tmp_path: Path, size: int) -> None:
    """Children in separate sessions end too, no matter how the run ends."""
    assert left(read, tmp_path / "runs", f"size={size}") == []


KILL_PARENT = """\
# %%
import os, psutil, signal, time
parent = psutil.Process().parents()[{above}]
if size == 2: parent.send_signal({number})
time.sleep(1.5)
"""


def ended_beside(
    read: Read, folder: Path, above: int, number: int = signal.SIGKILL
) -> tuple[dict[str, str], list[int]]:
    """The reasons of two runs side by side if one signals a process above its kernel.

    And the processes that they have left. `above` is 0 for its run process and 1 for the server.
    """
    mark = f"601.{os.getpid()}"
    lesson = read(ORPHAN.format(mark=mark) + KILL_PARENT.format(above=above, number=number))
    runs = planner.runs([lesson], ["size=2,3"], [], timeout_s=10)
    ends = executions(runs, folder, LocalExecutor(), slots=2)
    return {end.run.label: end.reason for end in ends}, sleepers(mark)


def test_a_killed_run_process_is_reported_and_the_other_run_goes_on(
    read: Read, tmp_path: Path
) -> None:
    """Its kernel ends with it, and the server ends its orphans."""
    reasons, left = ended_beside(read, tmp_path / "runs", above=0)
    assert reasons == {"size=2": "its process was killed by SIGKILL", "size=3": ""}
    assert left == []


def test_a_killed_server_is_reported_by_its_runs_and_leaves_nothing(
    read: Read, tmp_path: Path
) -> None:
    """Each run process notices it and ends everything of its run."""
    reasons, left = ended_beside(read, tmp_path / "runs", above=1)
    assert {*reasons.values()} == {"its fork server was killed by SIGKILL"}
    assert left == []


def test_a_killed_server_is_replaced_for_the_next_run(read: Read, tmp_path: Path) -> None:
    """Only the runs in progress are lost."""
    lesson = read(KILL_PARENT.format(above=1, number=9))
    ends = executions(planner.runs([lesson], ["size=2,3"], []), tmp_path, LocalExecutor())
    assert [end.reason for end in ends] == ["its fork server was killed by SIGKILL", ""]


def test_a_stopped_run_process_is_ended_by_the_server(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot notice its own deadline."""
    monkeypatch.setattr(server_client, "GRACE_S", 1)
    reasons, left = ended_beside(read, tmp_path / "runs", above=0, number=signal.SIGSTOP)
    assert reasons == {"size=2": "it hangs, and does not notice its deadline", "size=3": ""}
    assert left == []


def test_a_stopped_server_is_ended(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the runs that it cannot report; nothing hangs."""
    for name in ("GRACE_S", "END_S"):
        monkeypatch.setattr(server_client, name, 1)
    monkeypatch.setattr(local, "CLOSE_S", 2)
    reasons, left = ended_beside(read, tmp_path / "runs", above=1, number=signal.SIGSTOP)
    assert all(reason for reason in reasons.values())
    assert left == []


@pytest.fixture
def hanging(read: Read, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process whose lesson started `sleep MARK` and hangs, and the mark."""
    mark = f"602.{os.getpid()}"
    lesson = read(ORPHAN.format(mark=mark) + "# %%\nimport time; time.sleep(600)\n")
    program = (
        "from pathlib import Path; from ci.execute import engine\n"
        "from ci.execute.local import LocalExecutor\n"
        "from ci.lesson import reader; from ci.plan import planner\n"
        f"runs = planner.runs([reader.read(Path({str(lesson.path)!r}))], [], [])\n"
        f"list(engine.execute(runs, Path({str(tmp_path / 'runs')!r}), LocalExecutor()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    assert eventually(lambda: sleepers(mark), 60)
    yield process, mark
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_pipeline_leaves_no_process(
    hanging: tuple[subprocess.Popen[bytes], str], number: signal.Signals
) -> None:
    """Server, kernel and children of the lesson end after an interrupt and after SIGKILL."""
    process, mark = hanging
    process.send_signal(number)
    process.wait(30)
    assert eventually(lambda: sleepers(mark) == [], 20)


def test_a_lesson_that_changed_while_it_waited_is_not_executed(read: Read, tmp_path: Path) -> None:
    """The oracles and the report are for the text that was read."""
    lesson = read()
    runs = planner.runs([lesson], [], [])
    lesson.path.write_text(lesson.path.read_text() + "# %%\n1\n")
    (end,) = executions(runs, tmp_path / "runs")
    assert (end.end, "was changed while it waited" in end.reason) == ("failed", True)


def test_many_runs_leave_no_process_descriptor_thread_or_file(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 6 runs there is as much as after 2."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    lesson = read(SPEAKING)

    def run(sizes: str, servers: Servers) -> tuple[object, ...]:
        runs = planner.runs([lesson], [f"size={sizes}"], [])
        *_, last = executions(runs, tmp_path / "runs", servers=servers)
        server, us = psutil.Process(parents(last)[1]), psutil.Process()
        eventually(lambda: not server.children())
        found: list[object] = [us.num_threads(), us.num_fds(), len(server.children())]
        found += sorted(temporary.iterdir())
        with contextlib.suppress(psutil.AccessDenied):  # only root may look into the server
            found.append(server.num_fds())
        return (*found,)

    with contextlib.closing(Servers(LocalExecutor())) as servers:
        assert run("2,3", servers) == run("4,5,6,7", servers)


class GpuExecutor(LocalExecutor):
    """This machine, pretending that its torch can use GPUs."""

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
from tests.execute.test_engine import GPUS, GpuExecutor
leases.FOLDER = Path({folder!r})
runs = planner.runs([reader.read(Path({lesson!r}))], ["size=2,3,4,5,6"], GPUS)
list(engine.execute(runs, Path({folder!r}) / "runs", GpuExecutor(), slots=3, gpus=GPUS))
"""


def overlaps(path: Path) -> list[tuple[str, str]]:
    """Pairs of runs that used a GPU at the same time."""
    rows = [line.split() for line in path.read_text().splitlines()]
    spans = [(gpus, float(began), float(ended)) for gpus, began, ended in rows]
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(spans, 2)
        if {*one[0].split(",")} & {*other[0].split(",")}
        and max(one[1], other[1]) < min(one[2], other[2])
    ]


def test_two_invocations_never_share_a_gpu(read: Read, tmp_path: Path) -> None:
    """On three GPUs, one has runs with one GPU and the other runs with two; all of them execute."""
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


def test_runs_with_one_gpu_execute_in_parallel(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own slot and GPU."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    runs = planner.runs([read()], ["size=2,3,4"], GPUS)
    events = list(engine.execute(runs, tmp_path / "runs", GpuExecutor(), slots=3, gpus=GPUS))
    started = [event for event in events if isinstance(event, Started)]
    assert {event.slot for event in started} == {0, 1, 2}
    assert {event.gpus for event in started} == {(gpu,) for gpu in GPUS}


def test_a_run_that_waits_for_another_invocation_is_reported(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts when the other invocation releases its GPU."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    lease = leases.GpuPool(GPUS[:1]).lease(GPUS[:1])
    assert lease
    runs = planner.runs([read()], [], GPUS[:1])
    kinds = []
    for event in engine.execute(runs, tmp_path / "runs", GpuExecutor(), gpus=GPUS[:1]):
        kinds.append(type(event))
        lease.close()
    assert kinds[0] is Waiting
    assert kinds[-1] is Finished


HUNGRY = "# %%\nimport time\nx = b'1' * (2**31 if size == 4 else 1)\ntime.sleep(5)\n"


def used_by_children() -> int:
    """The memory of the processes below this one, in bytes."""
    used = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            used += process.memory_full_info().pss
    return used


def test_the_run_that_uses_the_most_memory_is_ended(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1.5 GiB available, a run that allocates 2 GiB ends, and the other one completes."""
    most = used_by_children() + 3 * memory.GIB // 2
    monkeypatch.setattr(memory, "available", lambda: most - used_by_children())
    runs = planner.runs([read(HUNGRY)], ["size=2,4"], [], timeout_s=60)
    events = engine.execute(runs, tmp_path / "runs", LocalExecutor(), slots=2, reserve=0)
    ends = [event.execution for event in events if isinstance(event, Finished)]
    ended = {end.run.label: end for end in ends}
    assert ended["size=2"].end == "completed"
    assert ended["size=4"].end == "failed"
    assert ended["size=4"].reason.startswith("out of memory: it used ")
