"""Warm kernels: what they show is what a cold kernel shows."""

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


class Counted(ForkServer):
    """A fork_server that counts its forks."""

    forks = 0

    def fork(self, *request: Any) -> ForkedProcess | None:
        """As any fork_server."""
        kernel = super().fork(*request)
        self.forks += kernel is not None
        return kernel


def started(folder: Path, **environment: str) -> Counted:
    """A fork_server for the lessons in `folder`."""
    fork_server = Counted()
    fork_server.start({**os.environ, **BACKEND, **ALL, **environment}, folder)
    return fork_server


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: it is what the parent of their kernels was started in."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def fork_server(tmp_path: Path) -> Iterator[Counted]:
    """For the lessons that `read` writes."""
    (tmp_path / "lessons").mkdir(exist_ok=True)
    fork_server = started(tmp_path / "lessons")
    yield fork_server
    fork_server.end()


def shown(lesson: Lesson, fork_server: Counted | None, **environment: str) -> list[Any]:
    """The outputs of the lesson's cells, in a kernel from the fork_server, else in a cold one."""
    forks = fork_server.forks if fork_server else 0
    verdict = execute(lesson, {}, variables={**ALL, **environment}, fork_server=fork_server)
    assert verdict.reason == ""
    assert not fork_server or fork_server.forks == forks + 1
    return [
        cell.outputs for cell in verdict.notebook.cells if cell.cell_type == "code" and cell.outputs
    ]


def text(lesson: Lesson, fork_server: Counted | None, **environment: str) -> str:
    """What the lesson's last cell shows."""
    return str(shown(lesson, fork_server, **environment)[-1][0].data["text/plain"])


@pytest.fixture(scope="module")
def lessons_server() -> Iterator[Counted]:
    """For the course."""
    fork_server = started(ROOT / "lessons")
    yield fork_server
    fork_server.end()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_lesson_shows_the_same(path: Path, lessons_server: Counted) -> None:
    """Values, texts, errors and figures, byte for byte, but for figures of measured times."""
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


def test_what_imports_filter_is_filtered(read: Read, fork_server: Counted) -> None:
    """NumPy, IPython and torch say which warnings are shown, and how often."""
    show = "[str(each) for each in warnings.filters]"
    lesson = read(f"# %%\nimport torch, warnings\n# %%\n{show}\n")
    warm, cold = (ast.literal_eval(text(lesson, parent)) for parent in (fork_server, None))
    assert set(cold) <= set(warm)
    assert len(cold) > 8


@pytest.mark.parametrize("what", SAME)
def test_a_fork_is_like_a_process_of_its_own(read: Read, fork_server: Counted, what: str) -> None:
    """Where it is, what it was given, whom it belongs to."""
    imports = "import multiprocessing, os, signal, sys, tempfile, torch"
    lesson = read(f"# %%\n{imports}\n# %%\n{SAME[what]}\n")
    assert text(lesson, fork_server) == text(lesson, None)


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()", "torch.rand(1).item()"])
def test_each_fork_draws_numbers_of_its_own(read: Read, fork_server: Counted, draw: str) -> None:
    """Without a seed, no two kernels draw the same."""
    lesson = read(f"# %%\nimport random, torch\nimport numpy as np\n{draw}\n")
    assert text(lesson, fork_server) != text(lesson, fork_server)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_are_those_of_a_cold_kernel(tmp_path: Path, read: Read, threads: str) -> None:
    """OpenBLAS starts its own when it is imported: they are gone when the parent forks."""
    lesson = read(
        "# %%\nimport os, torch\nimport numpy as np\n"
        "np.ones((500, 500)) @ np.ones((500, 500)); torch.ones(500, 500) @ torch.ones(500, 500);\n"
        "torch.get_num_threads(), len(os.listdir('/proc/self/task'))\n"
    )
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    fork_server = started(lesson.path.parent, **wanted)
    try:
        assert text(lesson, fork_server, **wanted) == text(lesson, None, **wanted)
    finally:
        fork_server.end()


def test_a_kernel_with_other_variables_is_cold(read: Read, fork_server: Counted) -> None:
    """A variable that an import may have read can't be changed after it."""
    forks = fork_server.forks
    verdict = execute(
        read(), {}, variables={**ALL, "OMP_NUM_THREADS": "7"}, fork_server=fork_server
    )
    assert (verdict.reason, fork_server.forks) == ("", forks)


def test_a_kernel_in_another_folder_is_cold(read: Read, tmp_path: Path) -> None:
    """An import may have looked beside itself."""
    fork_server = started(tmp_path)
    try:
        verdict = execute(read(), {}, variables=ALL, fork_server=fork_server)
        assert (verdict.reason, fork_server.forks) == ("", 0)
    finally:
        fork_server.end()


def test_a_lease_reaches_the_kernel(read: Read, fork_server: Counted) -> None:
    """CUDA reads it when it is first used, which is in the kernel."""
    lesson = read("# %%\nimport os; os.environ['CUDA_VISIBLE_DEVICES']\n")
    assert text(lesson, fork_server, CUDA_VISIBLE_DEVICES="GPU-1") == "'GPU-1'"


BROKEN = {
    "a thread": "import threading; threading.Thread(target=threading.Event().wait).start()",
    "a warning": "import warnings; warnings.warn('hear, hear')",
    "no such module": "raise ImportError('no')",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_parent_that_cannot_be_forked_leaves_kernels_cold(
    read: Read, tmp_path_factory: pytest.TempPathFactory, fault: str
) -> None:
    """Then each kernel imports for itself, and says what there is to say."""
    elsewhere = tmp_path_factory.mktemp("broken")
    (elsewhere / "stack_data.py").write_text(f"{BROKEN[fault]}\n")
    lesson = read()
    fork_server = started(lesson.path.parent, PYTHONPATH=f"{elsewhere}:{ROOT}")
    assert fork_server.pids == set()
    verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
    assert (verdict.reason, fork_server.forks) == ("", 0)


def test_a_dead_parent_is_replaced(read: Read) -> None:
    """At the next start, and not before: until then a run would fail."""
    lesson = read()
    fork_server = started(lesson.path.parent)
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
def test_ranks_are_like_those_of_a_cold_kernel(read: Read, fork_server: Counted, what: str) -> None:
    """Where they are, what they were given, where their words go."""
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
def test_a_rank_server_stands_aside_where_a_lesson_makes_a_difference(
    read: Read, fork_server: Counted, preload: list[str], before: str, warm: bool
) -> None:
    """What it would have imported, it can't have imported otherwise."""
    lesson = read(RANKS.format(preload=preload, before=before, what=WARM))
    assert text(lesson, fork_server) == str((warm, True))


def test_draws_of_ranks_are_not_the_kernels(read: Read, fork_server: Counted) -> None:
    """They have been seeded for themselves."""
    draw = "__import__('torch').rand(1).item()"
    lesson = read(
        RANKS.format(preload=["torch"], before="", what=draw) + f"# %%\nfound == {draw}\n"
    )
    assert text(lesson, fork_server) == "False"
