"""A small course of one's own: scripts and oracles in a temporary folder."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nbformat
import pytest
from nbformat import NotebookNode

from ci.errors import MachineError
from ci.execute import engine
from ci.execute.events import Execution, Finished
from ci.execute.executor import Executor
from ci.execute.leases import Lease
from ci.execute.local import LocalExecutor
from ci.execute.server_client import ServerClient
from ci.execute.servers import Servers
from ci.handout.pool import HandoutPool
from ci.lab import image
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.machine import atomic
from ci.plan import planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from tests.slurm.cluster import PROGRAMS, Cluster, cluster

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"

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

# The fixtures through which tests get an engine, the wheels of its images, or a browser.
NEEDS = {
    "docker_engine": "docker",
    "cpu_wheel": "docker",
    "browser": "browser",
    "slurm_cluster": "slurm",
}
# The modules with tests of Docker, by the process that runs them. All share one engine; a group
# counts its own containers, or removes images.
WITH_ENGINE = {
    "docker: images": {"system/test_docker.py", "system/test_image.py", "system/test_workflow.py"},
    "docker: containers": {
        "execute/test_container.py",
        "execute/test_container_gpus.py",
        "execute/test_container_limits.py",
        "execute/test_escapes.py",
        "system/test_engine_dies.py",
        "system/test_lab.py",
    },
    "docker: commands": {
        "doctor/test_in_lab.py",
        "jupyterlab/test_server.py",
        "lab/test_docker_engine.py",
    },
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by what they need; with pytest-xdist, begin with those that take long."""
    for item in items:
        for fixture, need in NEEDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(need)
        if item.get_closest_marker("docker") and not _group(item.nodeid).startswith("docker"):
            raise pytest.UsageError(f"{item.nodeid} needs an engine: add its module to WITH_ENGINE")
    if hasattr(config, "workerinput"):
        # The first group builds the lab's image, for which the other groups with an engine wait.
        order = [next(iter(WITH_ENGINE)), "kernel", "docker", "browser", ""]
        ranks: dict[str, int] = {}
        for item in items:
            group = _group(item.nodeid)
            needs = {group, "", *(mark.name for mark in item.iter_markers())}
            rank = min(order.index(need) for need in needs.intersection(order))
            ranks[group] = min(rank, ranks.get(group, rank))
        items.sort(key=lambda item: ranks[_group(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a module to one process, as its tests share fixtures, or a group of `WITH_ENGINE`.

    pytest-xdist 3.8 has groups too, but they have no effect with pytest 9.2, without a warning.
    """
    from xdist.scheduler import LoadScopeScheduling

    class LoadGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    config.option.loadscopereorder = False
    return LoadGroups(config, log)


def _group(nodeid: str) -> str:
    module = nodeid.partition("::")[0].removeprefix("tests/")
    return next((group for group, modules in WITH_ENGINE.items() if module in modules), module)


def missing(part: str) -> NoReturn:
    """A system part is not there: the test is skipped, and in CI it fails."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs {part}")
    raise AssertionError


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


def eventually(condition: Callable[[], object], timeout_s: float = 10) -> bool:
    """Whether `condition()` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def containers_named(word: str) -> list[str]:
    """Containers of ours whose name has `word` in it."""
    with connect() as client:
        found = client.containers.list(all=True, filters={"name": word}, ignore_removed=True)
        return [container.name for container in found]


@pytest.fixture(scope="session")
def pool() -> Iterator[HandoutPool]:
    """One for all tests: its processes are kept."""
    with HandoutPool() as pool:
        yield pool


@pytest.fixture
def poppler() -> None:
    """pdftotext."""
    if not shutil.which("pdftotext"):
        missing("poppler-utils")


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine that answers; CONTRIBUTING says how to start one for the tests."""
    try:
        with connect():
            return
    except MachineError as error:
        missing(f"a Docker engine: {error}")


def once() -> AbstractContextManager[None]:
    """What the block makes is made by one process, and found by the others."""
    return atomic.exclusive(ROOT / "build/tests", on_wait=lambda: None)


@pytest.fixture(scope="session")
def base_image(docker_engine: None) -> str:
    """The name of a base image, made by docker/make_base where it is not there."""
    name = "pytorch-course-base:bookworm"
    with once(), connect() as client:
        if not client.images.list(name=name):
            if os.getuid() != 0 or not shutil.which("mmdebstrap"):
                missing("root and mmdebstrap")
            subprocess.run([DOCKER / "make_base", name], check=True)
    return name


@pytest.fixture(scope="session")
def cpu_wheel() -> Path:
    """The folder of wheels, with torch's CPU build in it, which PyPI does not have."""
    wheels = DOCKER / "wheels"
    with once():
        if not list(wheels.glob("torch-*+cpu-*.whl")):
            wheel = ["torch==2.13.0+cpu", "--no-deps", "--dest", str(wheels)]
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", *wheel], check=True)
    return wheels


@pytest.fixture(scope="session")
def lab_image(base_image: str, cpu_wheel: Path) -> Image:
    """The lab's image of today's docker/, with the CPU build of torch."""
    build = ["build-lab", "--variant", "cpu", "--base-image", base_image]
    with once(), connect() as client:
        subprocess.run([sys.executable, "-m", "invoke", *build], cwd=ROOT, check=True)
        return image.find(client, ["cpu"], DOCKER)


@pytest.fixture
def hook_log(docker_engine: None) -> Iterator[Path]:
    """What containers that asked for GPUs were given, by the hook of tests/engine: emptied."""
    log = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://")).with_name("hook.log")
    if not log.exists():
        missing("the engine that tests/engine/start starts")
    log.write_text("")
    yield log


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A Slurm cluster of three nodes with two GPUs each, on this machine."""
    if os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        missing(f"root and {', '.join(PROGRAMS)}")
    with cluster() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", found.environment["SLURM_CONF"])
        yield found


@pytest.fixture
def slurm(slurm_cluster: Cluster) -> Cluster:
    """The cluster, once all of its nodes are up."""
    slurm_cluster.wait_until_up()
    return slurm_cluster


Write = Callable[..., Path]
Read = Callable[..., Lesson]


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
