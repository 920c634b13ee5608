"""A small course of one's own: scripts and oracles in a temporary folder."""

import atexit
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from invoke.main import program
from nbformat import NotebookNode

from ci.execute import engine
from ci.execute.events import Execution, Finished
from ci.execute.executor import Executor
from ci.execute.leases import Lease
from ci.execute.local import LocalExecutor
from ci.execute.server_client import ServerClient
from ci.execute.servers import Servers
from ci.handout.pool import HandoutPool
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

pytest_plugins = ["tests.order", "tests.machine_parts"]

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"

Invoke = Callable[..., tuple[int, str]]
Read = Callable[..., Lesson]
Write = Callable[..., Path]

HEADER = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 1}
#     parameters: {size: {min: 2, max: 64}}
# ---

# %% [markdown] lang="en"
# # A lesson
# %% [markdown] lang="zh"
# # 一课
# %% tags=["parameters"]
size: int = 4  # length of the vector
# %%
import numpy as np
"""

GRADIENT = """\
# %% check="gradient"
4.0 * np.arange(size)
"""

ORACLE = '''\
import numpy as np
from ci.lesson.expect import expect


@expect(dtype="float64")
def gradient(size):
    """dy/dx_i = 4 x_i."""
    return 4 * np.arange(size, dtype=float)
'''

EXERCISE = """\
# %% tags=["setup"]
import numpy as np
# %% [markdown] lang="en"
# ## Exercises
# %% [markdown] lang="zh"
# ## 练习
# %% [markdown] lang="en" tags=["exercise"]
# ### 1. Halves
#
# Halve 0 ... size - 1.
# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 减半
#
# 把 0 到 size - 1 减半。
# %% tags=["exercise"]
halves = ...
halves
# %% tags=["solution"] check="halves"
onehalf = 0.5  # hiddenway
halves = onehalf * np.arange(size)
halves
"""

HALVES = '''

@expect(dtype="float64")
def halves(size):
    """Half of i is i / 2."""
    return np.arange(size, dtype=float) / 2
'''


# A shell starts what it puts in the background deaf to Ctrl-C, and so would be the processes that
# tests start, and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# One thread each: more tests run at once than there are cores, as many of them wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def executions(
    runs: Sequence[Run],
    folder: Path,
    executor: Executor | None = None,
    *,
    slots: int = 1,
    gpus: Sequence[Gpu] = (),
    servers: Servers | None = None,
) -> list[Execution]:
    """The executions of `runs`, in the order in which they end; on this machine by default.

    There, all tests share a fork server.
    """
    events = engine.execute(
        runs, folder, executor or LocalExecutor(), slots=slots, gpus=gpus, servers=servers
    )
    return [event.execution for event in events if isinstance(event, Finished)]


class Executed(NamedTuple):
    """The executed notebook of a lesson, and the cell and the reason of its fault."""

    notebook: NotebookNode
    cell: str
    reason: str


def executed(lesson: Lesson, *settings: str, servers: Servers | None = None) -> Executed:
    """Execute a lesson on this machine, by a fork server that all tests share by default."""
    runs = planner.runs([lesson], settings, [])
    (found,) = executions(runs, lesson.path.parents[1] / "runs", servers=servers)
    assert found.notebook, found.reason
    notebook = nbformat.read(found.notebook, as_version=4)
    return Executed(notebook, found.cell, found.reason)


class KeptServers(Servers):
    """A fork server of this machine that lives as long as the tests have the same environment."""

    _environment: Mapping[str, str] = {}

    def lend(self, runs: Sequence[Run], lease: Lease, folder: Path) -> ServerClient:
        """Lend the server, or a new one in another environment."""
        os.environ.pop("PYTEST_CURRENT_TEST", None)  # differs between the tests
        if self._environment != os.environ:
            super().close()
        self._environment = dict(os.environ)
        return super().lend(runs, lease, folder)

    def close(self) -> None:
        """Keep it for the next test."""


@cache
def shared_servers() -> Servers:
    """The server of all tests; it ends with this process."""
    servers = KeptServers(LocalExecutor())
    atexit.register(Servers.close, servers)
    return servers


@pytest.fixture(autouse=True)
def one_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands in this process use the server of all tests, in place of one each."""

    def servers(executor: Executor) -> Servers:
        return shared_servers() if type(executor) is LocalExecutor else Servers(executor)

    monkeypatch.setattr(engine, "Servers", servers)


@pytest.fixture
def course(tmp_path: Path, write: Write) -> Path:
    """A course of one lesson with the project's tasks."""
    shutil.copy(ROOT / "tasks.py", tmp_path)
    write(expected=ORACLE)
    return tmp_path


@pytest.fixture
def invoke(
    course: Path,
    pool: HandoutPool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Invoke]:
    """`invoke` in this process: its exit status and what it prints.

    Its lessons and handouts are made by the processes that all tests share.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr("ci.run.run.HandoutPool", lambda: nullcontext(pool))
    monkeypatch.chdir(course)

    def invoke(*words: str) -> tuple[int, str]:
        try:
            program.run(["invoke", *words])
        except SystemExit as ended:
            return int(ended.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    yield invoke
    for number, handler in before.items():
        signal.signal(number, handler)


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def eventually(condition: Callable[[], object], timeout_s: float = 10) -> bool:
    """Whether `condition()` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="session")
def pool() -> Iterator[HandoutPool]:
    """One for all tests: its processes are kept."""
    with HandoutPool() as pool:
        yield pool


def write_lesson(
    folder: Path,
    cells: str = GRADIENT,
    *,
    header: str = HEADER,
    expected: str = "",
    name: str = "01_small",
) -> Path:
    """Write a lesson (and its oracles, unless empty) into `folder/lessons`; its path."""
    path = folder / "lessons" / f"{name}.py"
    oracles = path.parent / "expected" / path.name
    oracles.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + cells, encoding="utf-8")
    if expected:
        oracles.write_text(expected, encoding="utf-8")
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a lesson into `tmp_path/lessons`; its path."""
    return partial(write_lesson, tmp_path)


@pytest.fixture
def read(write: Write) -> Read:
    """Write a lesson as `write` does, and read it."""

    def read(cells: str = GRADIENT, **options: str) -> Lesson:
        return reader.read(write(cells, **options))

    return read
