"""Runs whose execution is recorded without a kernel, and the work of the next plan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ci.execute.events import End, Execution
from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.judge.outcome import Outcome
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from ci.plan import attempts, planner
from ci.plan.attempts import LOG, NOTEBOOK
from ci.plan.planner import Run
from ci.plan.run_cache import RunCache, Work
from ci.run.run import keep
from ci.worker.executed import save
from tests.conftest import GRADIENT, ORACLE, Read
from tests.judge.test_verdicts import executed

WRONG = ORACLE.replace("4 * np", "6 * np")


def is_published(lesson: str, key: str) -> bool:
    """The handouts of every lesson are on the course page."""
    return True


def default_run(lesson: Lesson) -> Run:
    """The run of a lesson with its default parameters."""
    return planner.Run(lesson, lesson.defaults)


def fake_execution(
    run: Run, build: Path, *, status: str = "completed", meanwhile: Callable[[], object] = id
) -> Outcome:
    """Pretend to execute `run`, whose cell shows 4 i, and record the outcome.

    `meanwhile` is called while the run executes.
    """
    run_cache = RunCache(build, LocalExecutor().facts)
    run_cache.work([run], is_published, fresh=True)
    attempt = attempts.begin(run, build / "runs")
    notebook = executed(run.lesson, gradient=4.0 * np.arange(run.parameters["size"]))
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = number + 1
    save(notebook, attempt / NOTEBOOK)
    (attempt / LOG).write_text("")
    if meanwhile is not id:
        meanwhile()
    execution = Execution(
        run,
        attempt,
        End(status),
        notebook=attempt / NOTEBOOK,
        seconds=1.5,
        date="2026-01-01 12:00 UTC",
        environment={"torch": "2.13.0"},
    )
    return keep(verdicts.judge(execution, oracle.load(run.lesson)), run_cache)


def work(*runs: Run, build: Path, fresh: bool = False) -> Work:
    """The work of the next plan."""
    return RunCache(build, LocalExecutor().facts).work(runs, is_published, fresh=fresh)


def judge_again(run: Run, build: Path) -> Outcome:
    """Judge the recorded notebook of `run` again, and record the outcome."""
    run_cache = RunCache(build, LocalExecutor().facts)
    (previous,) = run_cache.work([run], is_published).judge
    return keep(verdicts.judge_again(previous, oracle.load(run.lesson)), run_cache)


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with an oracle."""
    return read(GRADIENT, expected=ORACLE)
