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
from ci.lesson.reader import Lesson
from ci.worker.forked import Forked, Nursery
from ci.worker.notebook import BACKEND, execute
from tests.conftest import ROOT, Read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are cold here"),
]
LESSONS = reader.find(ROOT / "lessons")
TIMES = "watch"  # in the figures of times that were measured; no others differ
ALL = {"CUDA_VISIBLE_DEVICES": "", "PYTEST_CURRENT_TEST": ""}  # else each test is another


class Counted(Nursery):
    """A nursery that counts its forks."""

    forks = 0

    def fork(self, *request: Any) -> Forked | None:
        """As any nursery."""
        kernel = super().fork(*request)
        self.forks += kernel is not None
        return kernel


def started(folder: Path, **environment: str) -> Counted:
    """A nursery for the lessons in `folder`."""
    nursery = Counted()
    nursery.start({**os.environ, **BACKEND, **ALL, **environment}, folder)
    return nursery


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: it is what the parent of their kernels was started in."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def nursery(tmp_path: Path) -> Iterator[Counted]:
    """For the lessons that `read` writes."""
    (tmp_path / "lessons").mkdir(exist_ok=True)
    nursery = started(tmp_path / "lessons")
    yield nursery
    nursery.end()


def shown(lesson: Lesson, nursery: Counted | None, **environment: str) -> list[Any]:
    """The outputs of the lesson's cells, in a kernel from the nursery, else in a cold one."""
    forks = nursery.forks if nursery else 0
    verdict = execute(lesson, {}, environment={**ALL, **environment}, nursery=nursery)
    assert verdict.reason == ""
    assert not nursery or nursery.forks == forks + 1
    return [
        cell.outputs for cell in verdict.notebook.cells if cell.cell_type == "code" and cell.outputs
    ]


def text(lesson: Lesson, nursery: Counted | None, **environment: str) -> str:
    """What the lesson's last cell shows."""
    return str(shown(lesson, nursery, **environment)[-1][0].data["text/plain"])


@pytest.fixture(scope="module")
def lessons_nursery() -> Iterator[Counted]:
    """For the course."""
    nursery = started(ROOT / "lessons")
    yield nursery
    nursery.end()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_lesson_shows_the_same(path: Path, lessons_nursery: Counted) -> None:
    """Values, texts, errors and figures, byte for byte, but for figures of measured times."""
    lesson = reader.read(path)
    for cell in lesson.notebook.cells:
        if TIMES in cell.source and "figure" in cell.metadata.get("tags", []):
            cell.source = ""
    assert shown(lesson, lessons_nursery) == shown(lesson, None)


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


def test_what_imports_filter_is_filtered(read: Read, nursery: Counted) -> None:
    """NumPy, IPython and torch say which warnings are shown, and how often."""
    show = "[str(each) for each in warnings.filters]"
    lesson = read(f"# %%\nimport torch, warnings\n# %%\n{show}\n")
    warm, cold = (ast.literal_eval(text(lesson, parent)) for parent in (nursery, None))
    assert set(cold) <= set(warm)
    assert len(cold) > 8


@pytest.mark.parametrize("what", SAME)
def test_a_fork_is_like_a_process_of_its_own(read: Read, nursery: Counted, what: str) -> None:
    """Where it is, what it was given, whom it belongs to."""
    imports = "import multiprocessing, os, signal, sys, tempfile, torch"
    lesson = read(f"# %%\n{imports}\n# %%\n{SAME[what]}\n")
    assert text(lesson, nursery) == text(lesson, None)


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()", "torch.rand(1).item()"])
def test_each_fork_draws_numbers_of_its_own(read: Read, nursery: Counted, draw: str) -> None:
    """Without a seed, no two kernels draw the same."""
    lesson = read(f"# %%\nimport random, torch\nimport numpy as np\n{draw}\n")
    assert text(lesson, nursery) != text(lesson, nursery)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_are_those_of_a_cold_kernel(tmp_path: Path, read: Read, threads: str) -> None:
    """OpenBLAS starts its own when it is imported: they are gone when the parent forks."""
    lesson = read(
        "# %%\nimport os, torch\nimport numpy as np\n"
        "np.ones((500, 500)) @ np.ones((500, 500)); torch.ones(500, 500) @ torch.ones(500, 500);\n"
        "torch.get_num_threads(), len(os.listdir('/proc/self/task'))\n"
    )
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    nursery = started(lesson.path.parent, **wanted)
    try:
        assert text(lesson, nursery, **wanted) == text(lesson, None, **wanted)
    finally:
        nursery.end()


def test_a_kernel_with_other_variables_is_cold(read: Read, nursery: Counted) -> None:
    """A variable that an import may have read can't be changed after it."""
    forks = nursery.forks
    verdict = execute(read(), {}, environment={**ALL, "OMP_NUM_THREADS": "7"}, nursery=nursery)
    assert (verdict.reason, nursery.forks) == ("", forks)


def test_a_kernel_in_another_folder_is_cold(read: Read, tmp_path: Path) -> None:
    """An import may have looked beside itself."""
    nursery = started(tmp_path)
    try:
        verdict = execute(read(), {}, environment=ALL, nursery=nursery)
        assert (verdict.reason, nursery.forks) == ("", 0)
    finally:
        nursery.end()


def test_a_lease_reaches_the_kernel(read: Read, nursery: Counted) -> None:
    """CUDA reads it when it is first used, which is in the kernel."""
    lesson = read("# %%\nimport os; os.environ['CUDA_VISIBLE_DEVICES']\n")
    assert text(lesson, nursery, CUDA_VISIBLE_DEVICES="GPU-1") == "'GPU-1'"


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
    nursery = started(lesson.path.parent, PYTHONPATH=f"{elsewhere}:{ROOT}")
    assert nursery.pids == set()
    verdict = execute(lesson, {}, environment=ALL, nursery=nursery)
    assert (verdict.reason, nursery.forks) == ("", 0)


def test_a_dead_parent_is_replaced(read: Read) -> None:
    """At the next start, and not before: until then a run would fail."""
    lesson = read()
    nursery = started(lesson.path.parent)
    try:
        (first,) = nursery.pids
        os.kill(first, signal.SIGKILL)
        verdict = execute(lesson, {}, environment=ALL, nursery=nursery)
        assert verdict.reason == "the kernel: the parent of warm kernels is gone, or hangs"
        nursery.start({**os.environ, **BACKEND, **ALL}, lesson.path.parent)
        shown(lesson, nursery)
    finally:
        nursery.end()


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
def test_ranks_are_like_those_of_a_cold_kernel(read: Read, nursery: Counted, what: str) -> None:
    """Where they are, what they were given, where their words go."""
    lesson = read(RANKS.format(preload=["torch"], before="", what=what))
    assert shown(lesson, nursery) == shown(lesson, None)


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
    read: Read, nursery: Counted, preload: list[str], before: str, warm: bool
) -> None:
    """What it would have imported, it can't have imported otherwise."""
    lesson = read(RANKS.format(preload=preload, before=before, what=WARM))
    assert text(lesson, nursery) == str((warm, True))


def test_draws_of_ranks_are_not_the_kernels(read: Read, nursery: Counted) -> None:
    """They have been seeded for themselves."""
    draw = "__import__('torch').rand(1).item()"
    lesson = read(
        RANKS.format(preload=["torch"], before="", what=draw) + f"# %%\nfound == {draw}\n"
    )
    assert text(lesson, nursery) == "False"
