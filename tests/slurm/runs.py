"""Runs and commands beside the cluster of the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import pytest

from ci.execute import engine
from ci.execute.events import CellStarted, Event, Execution, Finished
from ci.execute.slurm.executor import SlurmExecutor
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.plan.planner import Run
from tests.conftest import ORACLE, ROOT, write_lesson

PATIENCE_S = 150.0  # for a job to start and end, on a machine that is busy
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


def start(course: Path, *words: str) -> subprocess.Popen[str]:
    """`invoke run --on slurm` in a process of its own."""
    command = [sys.executable, "-m", "invoke", "run", "--on", "slurm", *words]
    return subprocess.Popen(
        command, cwd=course, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    output, _ = process.communicate(timeout=2 * PATIENCE_S)
    return process.returncode, output


def write_course(folder: Path, cells: str = "") -> Path:
    """A course of two lessons, with these cells, and the project's tasks."""
    shutil.copy(ROOT / "tasks.py", folder)
    for name in ("01_one", "02_two"):
        if cells:
            write_lesson(folder, cells, name=name)
        else:
            write_lesson(folder, expected=ORACLE, name=name)
    return folder


def once(mark: Path) -> str:
    """A cell that ends only if it is executed for the second time; the first time leaves `mark`."""
    return (
        f"# %%\nimport pathlib, time\nmark = pathlib.Path(r'{mark}')\n"
        "if not mark.exists():\n    mark.touch()\n    time.sleep(600)\n"
    )


def wait_for(mark: Path) -> str:
    """A cell that ends when the file `mark` exists."""
    return (
        f"# %%\nimport pathlib, time\nwhile not pathlib.Path(r'{mark}').exists(): time.sleep(0.1)\n"
    )


def put_into_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Let a shell script take the place of a program; `{real}` is the path of that program."""
    real = shutil.which(name)
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script.replace('{real}', real or '')}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
