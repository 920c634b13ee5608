"""Forked kernels behave like fresh kernels."""

import ast
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ci.lesson import reader
from ci.lesson.lesson import Lesson, find_lessons
from ci.worker.forked import ForkedProcess, ForkServer
from ci.worker.notebook import BACKEND, execute
from tests.conftest import ROOT, Read

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are cold here"),
]
LESSONS = find_lessons(ROOT / "lessons")
TIMES = "watch"  # in the figures of times that were measured; no others differ
ALL = {"CUDA_VISIBLE_DEVICES": "", "PYTEST_CURRENT_TEST": ""}  # else each test is another


class CountingForkServer(ForkServer):
    """A fork server that counts its forks."""

    forks = 0

    def fork(self, *request: Any) -> ForkedProcess | None:
        """Fork like any fork server."""
        kernel = super().fork(*request)
        self.forks += kernel is not None
        return kernel


def start_server(folder: Path, **environment: str) -> CountingForkServer:
    """A fork server for the lessons in `folder`."""
    fork_server = CountingForkServer()
    fork_server.start({**os.environ, **BACKEND, **ALL, **environment}, folder)
    return fork_server


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests, in which the fork server was started."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def fork_server(tmp_path: Path) -> Iterator[CountingForkServer]:
    """A fork server for the lessons that `read` writes."""
    (tmp_path / "lessons").mkdir(exist_ok=True)
    fork_server = start_server(tmp_path / "lessons")
    yield fork_server
    fork_server.end()


def shown(lesson: Lesson, fork_server: CountingForkServer | None, **environment: str) -> list[Any]:
    """The outputs of the lesson, in a forked kernel if there is a server, else in a fresh one."""
    forks = fork_server.forks if fork_server else 0
    verdict = execute(lesson, {}, variables={**ALL, **environment}, fork_server=fork_server)
    assert verdict.reason == ""
    assert not fork_server or fork_server.forks == forks + 1
    return [
        cell.outputs for cell in verdict.notebook.cells if cell.cell_type == "code" and cell.outputs
    ]


def text(lesson: Lesson, fork_server: CountingForkServer | None, **environment: str) -> str:
    """The text that the last cell of the lesson shows."""
    return str(shown(lesson, fork_server, **environment)[-1][0].data["text/plain"])


@pytest.fixture(scope="module")
def lessons_server() -> Iterator[CountingForkServer]:
    """A fork server for the course."""
    fork_server = start_server(ROOT / "lessons")
    yield fork_server
    fork_server.end()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_lesson_shows_the_same_in_both_kernels(
    path: Path, lessons_server: CountingForkServer
) -> None:
    """Byte for byte, except figures of measured times."""
    lesson = reader.read(path)
    for cell in lesson.notebook.cells:
        if TIMES in cell.source and "figure" in cell.metadata.get("tags", []):
            cell.source = ""
    assert shown(lesson, lessons_server) == shown(lesson, None)


SAME = {
    "environment": "sorted(set(os.environ) - {'OLDPWD'})",
    "folder": "os.getcwd(), multiprocessing.process.ORIGINAL_DIR",
    "temporary": "tempfile.gettempdir().startswith(os.environ['TMPDIR'])",
    "modules": "sys.path, sys.argv[0], sys.argv[1:2], sorted(vars(sys.modules['__main__']))",
    "threads": "torch.get_num_threads(), torch.get_num_interop_threads()",
    "parent": "os.environ['JPY_PARENT_PID'] == str(os.getppid())",
    "descriptors": "len(os.listdir('/proc/self/fd')) < 60, os.read(0, 1)",
    "fonts": "[f for f in os.listdir('/proc/self/fd') if os.path.realpath(f'/proc/self/fd/{f}')"
    ".endswith('.ttf')]",
    "session": "os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGINT)",
    "cuda": "torch.cuda._is_in_bad_fork(), torch.cuda.is_available()",
    "dumpable": "os.stat('/proc/self/fd').st_uid == os.getuid()",
}


def test_warning_filters_of_imports_are_in_both_kernels(
    read: Read, fork_server: CountingForkServer
) -> None:
    """NumPy, IPython and torch add filters when they are imported."""
    show = "[str(each) for each in warnings.filters]"
    lesson = read(f"# %%\nimport torch, warnings\n# %%\n{show}\n")
    warm, cold = (ast.literal_eval(text(lesson, parent)) for parent in (fork_server, None))
    assert set(cold) <= set(warm)
    assert len(cold) > 8


@pytest.mark.parametrize("what", SAME)
def test_a_forked_kernel_is_like_a_fresh_process(
    read: Read, fork_server: CountingForkServer, what: str
) -> None:
    """For example in its folder, environment, threads and open files."""
    imports = "import multiprocessing, os, signal, sys, tempfile, torch"
    lesson = read(f"# %%\n{imports}\n# %%\n{SAME[what]}\n")
    assert text(lesson, fork_server) == text(lesson, None)


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()", "torch.rand(1).item()"])
def test_each_fork_has_its_own_random_state(
    read: Read, fork_server: CountingForkServer, draw: str
) -> None:
    """Without a seed, no two kernels draw the same numbers."""
    lesson = read(f"# %%\nimport random, torch\nimport numpy as np\n{draw}\n")
    assert text(lesson, fork_server) != text(lesson, fork_server)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_kernel_has_the_threads_of_a_fresh_kernel(
    tmp_path: Path, read: Read, threads: str
) -> None:
    """OpenBLAS starts threads at import, which do not exist after a fork."""
    lesson = read(
        "# %%\nimport os, torch\nimport numpy as np\n"
        "np.ones((500, 500)) @ np.ones((500, 500)); torch.ones(500, 500) @ torch.ones(500, 500);\n"
        "torch.get_num_threads(), len(os.listdir('/proc/self/task'))\n"
    )
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    fork_server = start_server(lesson.path.parent, **wanted)
    try:
        assert text(lesson, fork_server, **wanted) == text(lesson, None, **wanted)
    finally:
        fork_server.end()


def test_a_kernel_with_other_variables_is_fresh(
    read: Read, fork_server: CountingForkServer
) -> None:
    """An import could have read the variable, which cannot be undone."""
    forks = fork_server.forks
    verdict = execute(
        read(), {}, variables={**ALL, "OMP_NUM_THREADS": "7"}, fork_server=fork_server
    )
    assert (verdict.reason, fork_server.forks) == ("", forks)


def test_a_kernel_in_another_folder_is_fresh(read: Read, tmp_path: Path) -> None:
    """An import could have read a file of its folder."""
    fork_server = start_server(tmp_path)
    try:
        verdict = execute(read(), {}, variables=ALL, fork_server=fork_server)
        assert (verdict.reason, fork_server.forks) == ("", 0)
    finally:
        fork_server.end()


def test_a_lease_is_set_in_the_kernel(read: Read, fork_server: CountingForkServer) -> None:
    """CUDA reads it at its first use, which is in the kernel."""
    lesson = read("# %%\nimport os; os.environ['CUDA_VISIBLE_DEVICES']\n")
    assert text(lesson, fork_server, CUDA_VISIBLE_DEVICES="GPU-1") == "'GPU-1'"


BROKEN = {
    "a thread": "import threading; threading.Thread(target=threading.Event().wait).start()",
    "a warning": "import warnings; warnings.warn('hear, hear')",
    "no such module": "raise ImportError('no')",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_kernels_are_fresh_if_the_server_cannot_fork(
    read: Read, tmp_path_factory: pytest.TempPathFactory, fault: str
) -> None:
    """Each kernel then imports by itself and shows the warnings."""
    elsewhere = tmp_path_factory.mktemp("broken")
    (elsewhere / "stack_data.py").write_text(f"{BROKEN[fault]}\n")
    lesson = read()
    fork_server = start_server(lesson.path.parent, PYTHONPATH=f"{elsewhere}:{ROOT}")
    assert fork_server.pids == set()
    verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
    assert (verdict.reason, fork_server.forks) == ("", 0)


def test_a_dead_fork_server_is_replaced(read: Read) -> None:
    """Not before the next start; until then, a run fails."""
    lesson = read()
    fork_server = start_server(lesson.path.parent)
    try:
        (first,) = fork_server.pids
        os.kill(first, signal.SIGKILL)
        verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
        assert verdict.reason == "the kernel: the fork server is gone, or hangs"
        fork_server.start({**os.environ, **BACKEND, **ALL}, lesson.path.parent)
        shown(lesson, fork_server)
    finally:
        fork_server.end()


RANKS = """\
# %%
import multiprocessing, os, time
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload({preload})
{before}
asked = {what!r}, "__import__('os').getppid()"
with context.Pool(1) as ranks:
    found, parent = (ranks.apply(eval, (text,)) for text in asked)
time.sleep(0.5)  # for what they print
# %%
found, parent == multiprocessing.forkserver._forkserver._forkserver_pid
"""
WARM = "'stack_data' in __import__('sys').modules"  # which a server that was started does not need


@pytest.mark.parametrize(
    "what",
    [
        "__import__('torch').get_num_threads(), __import__('torch').cuda._is_in_bad_fork()",
        "__import__('os').getcwd(), __import__('sys').path",
        "sorted(set(__import__('os').environ) - {'OLDPWD'})",
        "__import__('signal').getsignal(2), __import__('signal').getsignal(17)",
        "__import__('multiprocessing').current_process().name",
        "print('from a rank', flush=True)",
    ],
)
def test_ranks_are_like_those_of_a_fresh_kernel(
    read: Read, fork_server: CountingForkServer, what: str
) -> None:
    """In their folder, environment, signals and output."""
    lesson = read(RANKS.format(preload=["torch"], before="", what=what))
    assert shown(lesson, fork_server) == shown(lesson, None)


@pytest.mark.parametrize(
    ("preload", "before", "warm"),
    [
        (["torch"], "", True),
        (["torch"], "os.environ['A_NEW_ONE'] = '1'", False),
        (["torch"], "os.chdir('/')", False),
        (["wave"], "", False),
    ],
)
def test_ranks_are_not_forked_if_the_lesson_changes_their_imports(
    read: Read, fork_server: CountingForkServer, preload: list[str], before: str, warm: bool
) -> None:
    """For example by another variable, folder or preloaded module."""
    lesson = read(RANKS.format(preload=preload, before=before, what=WARM))
    assert text(lesson, fork_server) == str((warm, True))


def test_ranks_have_their_own_random_state(read: Read, fork_server: CountingForkServer) -> None:
    """They are seeded separately."""
    draw = "__import__('torch').rand(1).item()"
    lesson = read(
        RANKS.format(preload=["torch"], before="", what=draw) + f"# %%\nfound == {draw}\n"
    )
    assert text(lesson, fork_server) == "False"
