"""The engine: what it reports about runs, and what many runs leave."""

import ast
import contextlib
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from ci.execute.events import Execution
from ci.execute.local import LocalExecutor
from ci.execute.servers import Servers
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.plan.attempts import LOG, NOTEBOOK
from tests.conftest import Read, eventually, executions, write_lesson

pytestmark = pytest.mark.kernel


def execute(lesson: Lesson, folder: Path, *settings: str, timeout_s: float = 60) -> list[Execution]:
    """The executions of the runs of `lesson`."""
    runs = planner.runs([lesson], settings, [], timeout_s=timeout_s)
    return executions(runs, folder)


def notebook(end: Execution) -> NotebookNode:
    """The executed notebook."""
    assert end.notebook, end.reason
    return nbformat.read(end.notebook, as_version=4)


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
