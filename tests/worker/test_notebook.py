"""Executing a lesson in a real kernel, cold and warm."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ci.worker import notebook as module
from ci.worker.forked import ForkServer
from ci.worker.notebook import BACKEND, Verdict
from tests.conftest import GRADIENT, Read

pytestmark = pytest.mark.kernel

FIXED = {"PYTEST_CURRENT_TEST": ""}  # else each test would be too new for the warm kernels' parent
Execute = Callable[..., Verdict]


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: it is what the warm kernels' parent was started in."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module", params=["cold", "warm"])
def execute(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Execute]:
    """Execute a lesson in a cold kernel, or in a warm one."""
    fork_server = ForkServer()
    if request.param == "warm":
        if sys.platform != "linux":
            pytest.skip("kernels are cold here")
        (tmp_path / "lessons").mkdir(exist_ok=True)
        fork_server.start({**os.environ, **BACKEND, **FIXED}, tmp_path / "lessons")
        assert fork_server.pids
    yield partial(module.execute, variables=FIXED, fork_server=fork_server)
    fork_server.end()


def test_a_lesson_runs_with_the_values_given(read: Read, execute: Execute) -> None:
    """Parameters reach the kernel, and the shown value comes back."""
    verdict = execute(read(), {"size": 3})
    assert verdict.reason == ""
    assert verdict.notebook.cells[-1].outputs[0].data["text/plain"] == "array([0., 4., 8.])"


def test_the_kernel_is_gone_afterwards(read: Read, execute: Execute) -> None:
    """Nothing of an execution is left."""
    before = set(psutil.Process().children(recursive=True))
    execute(read(), {})
    assert set(psutil.Process().children(recursive=True)) <= before


FAULTS = {
    "ValueError: no": 'raise ValueError("no")',
    "the lesson left by sys.exit(0)": "import sys; sys.exit(0)",
    "the lesson left by sys.exit()": "import sys; sys.exit()",
    "its kernel was killed by SIGKILL": "import os; os.kill(os.getpid(), 9)",
    "its kernel ended by itself with exit status 3": "import os; os._exit(3)",
    "SyntaxError: invalid syntax": "1 +* 1",
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_names_cell_and_reason(read: Read, execute: Execute, reason: str) -> None:
    """An error, an exit and a dead kernel end the lesson at that cell, and never count as done."""
    verdict = execute(read(f"# %%\n{FAULTS[reason]}\n" + GRADIENT), {})
    assert (verdict.cell, verdict.reason.startswith(reason)) == ("cell-4", True)
    assert verdict.notebook.cells[-1].execution_count is None


def test_the_outputs_before_a_fault_are_kept(read: Read, execute: Execute) -> None:
    """A student's log is not lost with the kernel."""
    verdict = execute(read('# %%\nprint("before", flush=True)\n# %%\nimport os; os._exit(3)\n'), {})
    assert verdict.notebook.cells[-2].outputs[0].text == "before\n"


def test_an_endless_print_is_cut(read: Read, execute: Execute) -> None:
    """What a cell prints is kept up to a length that somebody might read."""
    verdict = execute(read("# %%\nfor i in range(100_000): print(i)\n"), {})
    text = verdict.notebook.cells[-1].outputs[0].text
    assert len(text) < 51_000
    assert text.endswith("… the rest is left out\n")


PIECES = """\
# %%
import sys
print("one", flush=True)
print("two", flush=True)
display(3)
print("four", flush=True)
print("five", file=sys.stderr, flush=True)
"""


def test_what_is_printed_in_one_go_is_one_output(read: Read, execute: Execute) -> None:
    """However many pieces the kernel sends; what stands between keeps its place."""
    outputs = execute(read(PIECES), {}).notebook.cells[-1].outputs
    assert [output.get("text", output.output_type) for output in outputs] == [
        *("one\ntwo\n", "display_data", "four\n", "five\n")
    ]


def test_a_declared_error_does_not_end_the_lesson(read: Read, execute: Execute) -> None:
    """A cell with raises= shows its traceback, and the lesson goes on."""
    verdict = execute(read('# %% raises="ValueError"\nraise ValueError\n' + GRADIENT), {})
    assert verdict.reason == ""
    assert verdict.notebook.cells[-2].outputs[0].ename == "ValueError"


def test_another_error_than_the_declared_one_ends_it(read: Read, execute: Execute) -> None:
    """raises="ValueError" does not allow a KeyError."""
    verdict = execute(read('# %% raises="ValueError"\n{}["x"]\n' + GRADIENT), {})
    assert verdict.reason == "KeyError: 'x'"


def test_a_lesson_runs_in_its_own_folder(read: Read, execute: Execute) -> None:
    """Files beside the lesson can be read by their names."""
    lesson = read("# %%\nopen('01_small.py').readline()\n")
    assert execute(lesson, {}).reason == ""


def test_a_lesson_imports_its_neighbours(read: Read, execute: Execute) -> None:
    """As in Jupyter, a module beside the lesson can be imported."""
    lesson = read("# %%\nimport neighbour\n")
    (lesson.path.parent / "neighbour.py").touch()
    assert execute(lesson, {}).reason == ""


def test_a_neighbour_cannot_take_the_place_of_a_module(read: Read, execute: Execute) -> None:
    """A file json.py beside the lesson does not break the kernel's start."""
    lesson = read()
    (lesson.path.parent / "json.py").write_text("raise SystemExit('shadowed')")
    assert execute(lesson, {}).reason == ""


def test_the_kernels_channels_are_private(read: Read, execute: Execute) -> None:
    """They are files that only this user can open, not ports that anybody on the machine can."""
    cells = "# %%\nimport json, ipykernel\njson.loads(ipykernel.get_connection_info())['ip']\n"
    folder = execute(read(cells), {}).notebook.cells[-1].outputs[0].data["text/plain"]
    assert folder.startswith("'/") and folder.endswith("/k'")


def test_figures_are_sharp_and_the_same_each_time(read: Read, execute: Execute) -> None:
    """A figure is SVG, with the same bytes for the same lesson."""
    lesson = read("# %%\nimport matplotlib.pyplot as plt\nplt.plot([0, 1]); plt.show()\n")
    first, second = (execute(lesson, {}).notebook.cells[-1].outputs[0].data for _ in range(2))
    assert first["image/svg+xml"] == second["image/svg+xml"]


def test_the_users_settings_do_not_reach_a_lesson(
    read: Read, execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a start-up file nor a plotting backend: figures are there, names are not."""
    (tmp_path / "startup.py").write_text("secret = 1")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = (
        "# %%\nimport matplotlib.pyplot as plt\nplt.plot([0, 1]); plt.show()\n"
        '# %% raises="NameError"\nsecret\n'
    )
    figure, secret = execute(read(cells), {}).notebook.cells[-2:]
    assert "image/svg+xml" in figure.outputs[0].data
    assert secret.outputs[0].ename == "NameError"


def test_a_lessons_temporary_files_go_with_it(read: Read, execute: Execute) -> None:
    """Its kernel is killed at the end, and could not tidy up."""
    verdict = execute(read("# %%\nimport tempfile\ntempfile.mkdtemp()\n"), {})
    folder = verdict.notebook.cells[-1].outputs[0].data["text/plain"].strip("'")
    assert not Path(folder).exists()


def test_each_cell_is_announced(read: Read, execute: Execute) -> None:
    """The live table counts the cells as they begin."""
    seen: list[tuple[int, int]] = []
    execute(read(), {}, on_cell=lambda cell, cells: seen.append((cell, cells)))
    assert seen == [(i, 5) for i in range(5)]
