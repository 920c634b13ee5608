"""Forked kernels behave like fresh kernels."""

import ast
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ci.lesson import reader
from ci.lesson.lesson import Lesson, find_lessons
from ci.worker.forked import ForkedProcess, ForkServer
from ci.worker.notebook import VARIABLES, execute
from tests.conftest import ROOT, Read, write_lesson

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are cold here"),
]
LESSONS = find_lessons(ROOT / "lessons")
TIMES = "watch"  # in the figures of times that were measured; no others differ
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ALL = {
    "CUDA_VISIBLE_DEVICES": "",
    "PYTEST_CURRENT_TEST": "",  # differs between the tests
    **dict.fromkeys(THREADS, "1"),
}
Answers = Mapping[str, Any]  # by question


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
    fork_server.start({**os.environ, **VARIABLES, **ALL, **environment}, folder)
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


MULTIPLY = "np.ones((500, 500)) @ np.ones((500, 500)), torch.ones(500, 500) @ torch.ones(500, 500)"
AFTER_MULTIPLYING = "torch.get_num_threads(), len(os.listdir('/proc/self/task'))"
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
    # OpenBLAS starts threads at import, which do not exist after a fork.
    "computing": f"({MULTIPLY}, {AFTER_MULTIPLYING})[2:]",
}
FILTERS = "[str(each) for each in warnings.filters]"


@pytest.fixture(scope="module")
def answers(tmp_path: Path, fork_server: CountingForkServer) -> tuple[Answers, Answers]:
    """What a forked and a fresh kernel show for each of `SAME`, and for the filters."""
    imports = "import multiprocessing, os, signal, sys, tempfile, torch, warnings"
    questions = {"filters": FILTERS, **SAME}
    cells = f"# %%\n{imports}\nimport numpy as np\n"
    cells += "".join(f"# %%\n{question}\n" for question in questions.values())
    lesson = reader.read(write_lesson(tmp_path, cells))

    def ask(server: CountingForkServer | None) -> Answers:
        outputs = [output.data["text/plain"] for [output] in shown(lesson, server)]
        return dict(zip(questions, outputs, strict=True))

    return ask(fork_server), ask(None)


def test_warning_filters_of_imports_are_in_both_kernels(answers: tuple[Answers, Answers]) -> None:
    """NumPy, IPython and torch add filters when they are imported."""
    forked, fresh = (ast.literal_eval(each["filters"]) for each in answers)
    assert set(fresh) <= set(forked)
    assert len(fresh) > 8


@pytest.mark.parametrize("what", SAME)
def test_a_forked_kernel_is_like_a_fresh_process(
    answers: tuple[Answers, Answers], what: str
) -> None:
    """For example in its folder, environment, threads and open files."""
    forked, fresh = answers
    assert forked[what] == fresh[what]


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()", "torch.rand(1).item()"])
def test_each_fork_has_its_own_random_state(
    read: Read, fork_server: CountingForkServer, draw: str
) -> None:
    """Without a seed, no two kernels draw the same numbers."""
    lesson = read(f"# %%\nimport random, torch\nimport numpy as np\n{draw}\n")
    assert text(lesson, fork_server) != text(lesson, fork_server)


def test_a_forked_kernel_has_the_two_threads_of_a_fresh_kernel(read: Read) -> None:
    """OpenBLAS starts threads at import, which do not exist after a fork."""
    imports = "import os, torch\nimport numpy as np\n"
    lesson = read(f"# %%\n{imports}{MULTIPLY};\n{AFTER_MULTIPLYING}\n")
    wanted = dict.fromkeys(THREADS, "2")
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


def test_a_kernel_in_another_folder_is_fresh(
    fork_server: CountingForkServer, tmp_path: Path
) -> None:
    """An import could have read a file of its folder."""
    lesson = reader.read(write_lesson(tmp_path / "elsewhere"))
    forks = fork_server.forks
    verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
    assert (verdict.reason, fork_server.forks) == ("", forks)


def test_a_lease_is_set_in_the_kernel(read: Read, fork_server: CountingForkServer) -> None:
    """CUDA reads it at its first use, which is in the kernel."""
    lesson = read("# %%\nimport os; os.environ['CUDA_VISIBLE_DEVICES']\n")
    assert text(lesson, fork_server, CUDA_VISIBLE_DEVICES="GPU-1") == "'GPU-1'"


BROKEN = {  # a module that the server imports, and its text
    "a thread": (
        "stack_data",
        "import threading; threading.Thread(target=threading.Event().wait).start()",
    ),
    "a warning": ("debugpy", "import warnings; warnings.warn('hear, hear')"),
    "no such module": ("torch", "raise ImportError('no')"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_kernels_are_fresh_if_the_server_cannot_fork(
    read: Read, tmp_path_factory: pytest.TempPathFactory, fault: str
) -> None:
    """Each kernel then imports by itself and shows the warnings."""
    elsewhere = tmp_path_factory.mktemp("broken")
    module, text = BROKEN[fault]
    (elsewhere / f"{module}.py").write_text(f"{text}\n")
    lesson = read()
    fork_server = start_server(lesson.path.parent, PYTHONPATH=f"{elsewhere}:{ROOT}")
    assert fork_server.pids == set()
    verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
    assert (verdict.reason, fork_server.forks) == ("", 0)


def test_a_dead_fork_server_is_replaced(read: Read, fork_server: CountingForkServer) -> None:
    """Not before the next start; until then, a run fails."""
    lesson = read()
    (first,) = fork_server.pids
    os.kill(first, signal.SIGKILL)
    verdict = execute(lesson, {}, variables=ALL, fork_server=fork_server)
    assert verdict.reason == "the kernel: the fork server is gone, or hangs"
    fork_server.start({**os.environ, **VARIABLES, **ALL}, lesson.path.parent)
    shown(lesson, fork_server)


RANKS = """\
# %%
import multiprocessing, os, time
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload({preload})
{before}
with context.Pool(1) as ranks:
    found = [ranks.apply(eval, (question,)) for question in {questions}]
    parent = ranks.apply(os.getppid)
time.sleep(0.5)  # for what they print
# %%
found, parent == multiprocessing.forkserver._forkserver._forkserver_pid
"""
SAME_IN_RANKS = {
    "threads": "__import__('torch').get_num_threads(), __import__('torch').cuda._is_in_bad_fork()",
    "folder": "__import__('os').getcwd(), __import__('sys').path",
    "environment": "sorted(set(__import__('os').environ) - {'OLDPWD'})",
    "signals": "[str(__import__('signal').getsignal(number)) for number in (2, 17)]",
    "name": "__import__('multiprocessing').current_process().name",
    "words": "print('from a rank', flush=True)",
}
WARM = "'stack_data' in __import__('sys').modules"  # which a server that was started does not need


@pytest.fixture(scope="module")
def rank_answers(tmp_path: Path, fork_server: CountingForkServer) -> tuple[Answers, Answers]:
    """What the ranks of a forked and of a fresh kernel answer to each of `SAME_IN_RANKS`."""
    questions = [*SAME_IN_RANKS.values()]
    cells = RANKS.format(preload=["torch"], before="", questions=questions)
    lesson = reader.read(write_lesson(tmp_path, cells))

    def ask(server: CountingForkServer | None) -> Answers:
        *printed, [answer] = shown(lesson, server)
        found, parent = ast.literal_eval(answer.data["text/plain"])
        assert parent
        return {**dict(zip(SAME_IN_RANKS, found, strict=True)), "words": printed}

    return ask(fork_server), ask(None)


@pytest.mark.parametrize("what", SAME_IN_RANKS)
def test_ranks_are_like_those_of_a_fresh_kernel(
    rank_answers: tuple[Answers, Answers], what: str
) -> None:
    """In their folder, environment, signals and output."""
    forked, fresh = rank_answers
    assert forked[what] == fresh[what]


@pytest.mark.parametrize(
    ("preload", "before", "warm"),
    [
        (["torch"], "", True),
        (["json"], "", True),
        (["json"], "os.environ['A_NEW_ONE'] = '1'", False),
        (["json"], "os.chdir('/')", False),
        (["wave"], "", False),
    ],
)
def test_ranks_are_not_forked_if_the_lesson_changes_their_imports(
    read: Read, fork_server: CountingForkServer, preload: list[str], before: str, warm: bool
) -> None:
    """For example by another variable, folder or preloaded module."""
    lesson = read(RANKS.format(preload=preload, before=before, questions=[WARM]))
    assert text(lesson, fork_server) == str(([warm], True))


def test_ranks_have_their_own_random_state(read: Read, fork_server: CountingForkServer) -> None:
    """They are seeded separately."""
    draw = "__import__('torch').rand(1).item()"
    cells = RANKS.format(preload=["torch"], before="", questions=[draw])
    lesson = read(f"{cells}# %%\nfound == [{draw}]\n")
    assert text(lesson, fork_server) == "False"
