"""The engine's processes: some are killed or stopped, and none of a run is left."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ci.execute import local, server_client
from ci.execute.local import LocalExecutor
from ci.plan import planner
from tests.conftest import Read, eventually, executions
from tests.execute.test_engine import execute

pytestmark = pytest.mark.kernel


ORPHAN = "# %%\nimport subprocess\nsubprocess.Popen(['sleep', '{mark}'], start_new_session=True)\n"


def sleepers(mark: str) -> list[int]:
    """The ids of the processes `sleep MARK`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.info["cmdline"] == ["sleep", mark]:
                found.append(process.pid)
    return found


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
