"""Forked kernels behave like fresh kernels."""

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ci.execute.events import Execution
from ci.execute.leases import Lease
from ci.execute.local import LocalExecutor, Process
from ci.execute.servers import Servers
from ci.lesson import reader
from ci.lesson.lesson import Lesson, find_lessons
from ci.plan import planner
from ci.plan.planner import Run
from tests.conftest import ROOT, Read, executions, shared_servers, write_lesson

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are fresh here"),
]
LESSONS = find_lessons(ROOT / "lessons")
# matplotlib hashes the sides of an axis, whose last bits depend on the memory layout of its solver.
IDS_OF_CLIPS = re.compile(r"\bp[0-9a-f]{10}\b")
TIMES = "watch"  # in the cells that measure times
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Answers = Mapping[str, Any]  # by question


class FreshExecutor(LocalExecutor):
    """This machine, without forks."""

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> Process:
        """Start a server that forks nothing."""
        return Process("ci.worker.server", variables, "fresh: on request")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Servers]:
    """A server whose runs import everything themselves."""
    servers = Servers(FreshExecutor())
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def forked() -> Servers:
    """A server that forks its runs."""
    return shared_servers()


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests."""
    return tmp_path_factory.mktemp("course")


def execution(lesson: Lesson, servers: Servers, threads: int = 1) -> Execution:
    """The execution of a lesson."""
    (run,) = planner.runs([lesson], [], [], slots=max(1, (os.cpu_count() or 1) // threads))
    (found,) = executions([run], lesson.path.parents[1] / "runs", servers=servers)
    return found


def outputs(found: Execution) -> list[Any]:
    """What the cells of an execution show, except measured times."""
    assert found.notebook, found.reason
    assert found.reason == ""
    text = IDS_OF_CLIPS.sub("p0", found.notebook.read_text())
    cells = nbformat.reads(text, as_version=4).cells
    return [cell.outputs for cell in cells if cell.get("outputs") and TIMES not in cell.source]


def shown(lesson: Lesson, servers: Servers, threads: int = 1) -> list[Any]:
    """What the cells of the lesson show."""
    return outputs(execution(lesson, servers, threads))


def text(lesson: Lesson, servers: Servers, threads: int = 1) -> str:
    """The text that the last cell of the lesson shows."""
    return str(shown(lesson, servers, threads)[-1][0].data["text/plain"])


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_lesson_shows_the_same_in_both_kernels(
    path: Path, forked: Servers, fresh: Servers, tmp_path: Path
) -> None:
    """Byte for byte, except figures of measured times."""
    (run,) = planner.runs([reader.read(path)], [], [])
    found = [executions([run], tmp_path, servers=servers)[0] for servers in (forked, fresh)]
    assert outputs(found[0]) == outputs(found[1])


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
def answers(tmp_path: Path, forked: Servers, fresh: Servers) -> tuple[Answers, Answers]:
    """What a forked and a fresh kernel show for each of `SAME`, and for the filters."""
    imports = "import multiprocessing, os, signal, sys, tempfile, torch, warnings"
    questions = {"filters": FILTERS, **SAME}
    cells = f"# %%\n{imports}\nimport numpy as np\n"
    cells += "".join(f"# %%\n{question}\n" for question in questions.values())
    lesson = reader.read(write_lesson(tmp_path, cells))

    def ask(servers: Servers) -> Answers:
        outputs = [output.data["text/plain"] for [output] in shown(lesson, servers)]
        return dict(zip(questions, outputs, strict=True))

    return ask(forked), ask(fresh)


def test_warning_filters_of_imports_are_in_both_kernels(answers: tuple[Answers, Answers]) -> None:
    """NumPy, IPython and torch add filters when they are imported."""
    in_forked, in_fresh = (ast.literal_eval(each["filters"]) for each in answers)
    assert set(in_fresh) <= set(in_forked)
    assert len(in_fresh) > 8


@pytest.mark.parametrize("what", SAME)
def test_a_forked_kernel_is_like_a_fresh_process(
    answers: tuple[Answers, Answers], what: str
) -> None:
    """For example in its folder, environment, threads and open files."""
    in_forked, in_fresh = answers
    assert in_forked[what] == in_fresh[what]


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()", "torch.rand(1).item()"])
def test_each_fork_has_its_own_random_state(read: Read, forked: Servers, draw: str) -> None:
    """Without a seed, no two kernels draw the same numbers."""
    lesson = read(f"# %%\nimport random, torch\nimport numpy as np\n{draw}\n")
    assert text(lesson, forked) != text(lesson, forked)


def test_a_forked_kernel_has_the_two_threads_of_a_fresh_kernel(
    read: Read, forked: Servers, fresh: Servers
) -> None:
    """OpenBLAS starts threads at import, which do not exist after a fork."""
    imports = "import os, torch\nimport numpy as np\n"
    lesson = read(f"# %%\n{imports}{MULTIPLY};\n{AFTER_MULTIPLYING}\n")
    assert text(lesson, forked, threads=2) == text(lesson, fresh, threads=2)


def test_the_environment_says_how_kernels_start(
    read: Read, forked: Servers, fresh: Servers
) -> None:
    """So a silent change from forked to fresh kernels can be seen."""
    found = [execution(read(), servers).environment["kernel"] for servers in (forked, fresh)]
    assert found == ["forked", "fresh: on request"]


BROKEN = {  # a module that the server imports, and its text
    "an import leaves 2 threads: a fork would lose all but one": (
        "debugpy",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ),
    "an import warns: hear, hear": ("debugpy", "import warnings; warnings.warn('hear, hear')"),
    "no": ("torch", "raise ImportError('no')"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_kernels_are_fresh_if_the_server_cannot_fork(
    read: Read, tmp_path_factory: pytest.TempPathFactory, reason: str
) -> None:
    """Each kernel then imports by itself and shows the warnings."""
    elsewhere = tmp_path_factory.mktemp("broken")
    module, text = BROKEN[reason]
    (elsewhere / f"{module}.py").write_text(f"{text}\n")

    class Broken(LocalExecutor):
        def start(
            self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
        ) -> Process:
            path = f"{elsewhere}:{ROOT}"
            return Process("ci.worker.server", {**variables, "PYTHONPATH": path})

    (found,) = executions(planner.runs([read()], [], []), elsewhere / "runs", Broken())
    assert (found.reason, found.environment["kernel"]) == ("", f"fresh: {reason}")


RANKS = """\
# %%
import multiprocessing, os, time
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload({preload})
{before}
with context.Pool(1) as ranks:
    found = [ranks.apply(eval, (question,)) for question in {questions}]
time.sleep(0.5)  # for what they print
# %%
found
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
def rank_answers(tmp_path: Path, forked: Servers, fresh: Servers) -> tuple[Answers, Answers]:
    """What the ranks of a forked and of a fresh kernel answer to each of `SAME_IN_RANKS`."""
    questions = [*SAME_IN_RANKS.values()]
    cells = RANKS.format(preload=["torch"], before="", questions=questions)
    lesson = reader.read(write_lesson(tmp_path, cells))

    def ask(servers: Servers) -> Answers:
        *printed, [answer] = shown(lesson, servers)
        found = ast.literal_eval(answer.data["text/plain"])
        return {**dict(zip(SAME_IN_RANKS, found, strict=True)), "words": printed}

    return ask(forked), ask(fresh)


@pytest.mark.parametrize("what", SAME_IN_RANKS)
def test_ranks_are_like_those_of_a_fresh_kernel(
    rank_answers: tuple[Answers, Answers], what: str
) -> None:
    """In their folder, environment, signals and output."""
    in_forked, in_fresh = rank_answers
    assert in_forked[what] == in_fresh[what]


@pytest.mark.parametrize(
    ("preload", "before", "warm"),
    [
        (["torch"], "", True),
        (["json"], "", True),
        (["json"], "os.environ['A_NEW_ONE'] = '1'", False),
        (["json"], "os.chdir('/')", True),
        (["wave"], "", True),
    ],
)
def test_ranks_are_not_forked_if_the_lesson_changes_what_imports_read(
    read: Read, forked: Servers, preload: list[str], before: str, warm: bool
) -> None:
    """By another variable; they start in the lesson's folder of that moment in any case."""
    lesson = read(RANKS.format(preload=preload, before=before, questions=[WARM]))
    assert text(lesson, forked) == str([warm])


def test_ranks_have_their_own_random_state(read: Read, forked: Servers) -> None:
    """They are seeded separately."""
    draw = "__import__('torch').rand(1).item()"
    cells = RANKS.format(preload=["torch"], before="", questions=[draw])
    lesson = read(f"{cells}# %%\nfound == [{draw}]\n")
    assert text(lesson, forked) == "False"
