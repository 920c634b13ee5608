"""The execution of a lesson in a fresh and in a forked kernel."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ci.execute import engine
from ci.execute.events import CellStarted
from ci.execute.local import LocalExecutor
from ci.execute.servers import Servers
from ci.plan import planner
from tests.conftest import GRADIENT, Executed, Read, eventually, executed, shared_servers
from tests.worker.test_forked import FreshExecutor

pytestmark = pytest.mark.kernel

Execute = Callable[..., Executed]


@pytest.fixture(scope="module", params=["fresh", "forked"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """A fork server, or one that does not fork."""
    if request.param == "fresh":
        servers = Servers(FreshExecutor())
        yield servers
        servers.close()
    elif sys.platform != "linux":
        pytest.skip("kernels are fresh here")
    else:
        yield shared_servers()


@pytest.fixture
def execute(servers: Servers) -> Execute:
    """A function that executes a lesson with parameters."""
    return partial(executed, servers=servers)


def test_a_lesson_runs_with_its_parameters(read: Read, execute: Execute) -> None:
    """The kernel gets them, and the notebook has the shown value."""
    verdict = execute(read(), "size=3")
    assert verdict.reason == ""
    assert verdict.notebook.cells[-1].outputs[0].data["text/plain"] == "array([0., 4., 8.])"


def test_no_process_is_left_after_an_execution(read: Read, execute: Execute) -> None:
    """Neither the kernel nor its children."""
    execute(read())  # starts the server
    before = set(psutil.Process().children(recursive=True))
    execute(read())
    assert eventually(lambda: set(psutil.Process().children(recursive=True)) <= before)


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
    """An error, an exit and a dead kernel end the lesson at their cell."""
    verdict = execute(read(f"# %%\n{FAULTS[reason]}\n" + GRADIENT))
    assert (verdict.cell, verdict.reason.startswith(reason)) == ("cell-4", True)
    assert verdict.notebook.cells[-1].execution_count is None


def test_the_outputs_before_a_fault_are_kept(read: Read, execute: Execute) -> None:
    """A dead kernel does not lose them."""
    verdict = execute(read('# %%\nprint("before", flush=True)\n# %%\nimport os; os._exit(3)\n'))
    assert verdict.notebook.cells[-2].outputs[0].text == "before\n"


def test_long_output_is_truncated(read: Read, execute: Execute) -> None:
    """A cell keeps as much text as a person would read."""
    verdict = execute(read("# %%\nfor i in range(100_000): print(i)\n"))
    text = verdict.notebook.cells[-1].outputs[0].text
    assert len(text) < 51_000
    assert text.endswith("… the rest is left out\n")


LARGE = """\
# %%
from IPython.display import HTML, display
large = "x" * 2**25
# %%
HTML(large)
# %%
{second}
"""


@pytest.mark.parametrize(
    "second", ["HTML(large)", "display(HTML(''), metadata={'text/html': {'x': large}})"]
)
def test_results_that_no_notebook_can_hold_fail_their_cell(
    read: Read, execute: Execute, second: str
) -> None:
    """They would fill the memory of everything that reads the notebook."""
    verdict = execute(read(LARGE.format(second=second)))
    assert verdict.reason == "the lesson shows 64 MiB up to here, at most 64"
    assert verdict.notebook.cells[-1].outputs == []


@pytest.mark.parametrize("name", ["ValueError", "SystemExit"])
def test_a_long_error_is_truncated(read: Read, execute: Execute, name: str) -> None:
    """Its text is a part of a message, of the log, and of the reports."""
    verdict = execute(read(f'# %%\nraise {name}("x" * 10**7)\n'))
    assert len(verdict.reason) == 1000
    assert len(str(verdict.notebook)) < 200_000


WIDGET = """\
# %%
from comm import create_comm
create_comm("jupyter.widget", {"state": {"x": "x" * 10**6}})
5
"""


def test_the_state_of_a_widget_is_not_kept(read: Read, execute: Execute) -> None:
    """No handout can show it, and it could be of any size."""
    verdict = execute(read(WIDGET))
    assert verdict.reason == ""
    assert "widgets" not in verdict.notebook.metadata


PIECES = """\
# %%
import sys
print("one", flush=True)
print("two", flush=True)
display(3)
print("four", flush=True)
print("five", file=sys.stderr, flush=True)
"""


def test_consecutive_prints_are_one_output(read: Read, execute: Execute) -> None:
    """The kernel sends several messages; other outputs keep their position between them."""
    outputs = execute(read(PIECES)).notebook.cells[-1].outputs
    assert [output.get("text", output.output_type) for output in outputs] == [
        *("one\ntwo\n", "display_data", "four\n", "five\n")
    ]


def test_a_declared_error_does_not_end_the_lesson(read: Read, execute: Execute) -> None:
    """A cell with `raises=` shows its traceback, and the next cell runs."""
    verdict = execute(read('# %% raises="ValueError"\nraise ValueError\n' + GRADIENT))
    assert verdict.reason == ""
    assert verdict.notebook.cells[-2].outputs[0].ename == "ValueError"


def test_an_undeclared_error_ends_the_lesson(read: Read, execute: Execute) -> None:
    """`raises="ValueError"` does not allow a KeyError."""
    verdict = execute(read('# %% raises="ValueError"\n{}["x"]\n' + GRADIENT))
    assert verdict.reason == "KeyError: 'x'"


def test_a_lesson_runs_in_its_own_folder(read: Read, execute: Execute) -> None:
    """It can read files beside it by name."""
    lesson = read("# %%\nopen('01_small.py').readline()\n")
    assert execute(lesson).reason == ""


def test_a_lesson_can_import_a_module_beside_it(read: Read, execute: Execute) -> None:
    """As in Jupyter."""
    lesson = read("# %%\nimport neighbour\n")
    (lesson.path.parent / "neighbour.py").touch()
    assert execute(lesson).reason == ""


def test_a_module_beside_a_lesson_cannot_shadow_the_standard_library(
    read: Read, execute: Execute
) -> None:
    """A file `json.py` does not break the start of the kernel."""
    lesson = read()
    (lesson.path.parent / "json.py").write_text("raise SystemExit('shadowed')")
    assert execute(lesson).reason == ""


def test_the_channels_of_a_kernel_are_private(read: Read, execute: Execute) -> None:
    """They are files that only this user can open, and not ports that are open to all users."""
    cells = "# %%\nimport json, ipykernel\njson.loads(ipykernel.get_connection_info())['ip']\n"
    folder = execute(read(cells)).notebook.cells[-1].outputs[0].data["text/plain"]
    assert folder.startswith("'/") and folder.endswith("/k'")


def test_figures_are_reproducible_svg(read: Read, execute: Execute) -> None:
    """The same lesson gives the same bytes."""
    lesson = read("# %%\nimport matplotlib.pyplot as plt\nplt.plot([0, 1]); plt.show()\n")
    first, second = (execute(lesson).notebook.cells[-1].outputs[0].data for _ in range(2))
    assert first["image/svg+xml"] == second["image/svg+xml"]


def test_settings_of_the_user_do_not_affect_a_lesson(
    read: Read, execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a start-up file nor a plotting backend."""
    (tmp_path / "startup.py").write_text("secret = 1")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = (
        "# %%\nimport matplotlib.pyplot as plt\nplt.plot([0, 1]); plt.show()\n"
        '# %% raises="NameError"\nsecret\n'
    )
    figure, secret = execute(read(cells)).notebook.cells[-2:]
    assert "image/svg+xml" in figure.outputs[0].data
    assert secret.outputs[0].ename == "NameError"


def test_temporary_files_of_a_lesson_are_removed(read: Read, execute: Execute) -> None:
    """The kernel is killed at the end and cannot remove them itself."""
    verdict = execute(read("# %%\nimport tempfile\ntempfile.mkdtemp()\n"))
    folder = verdict.notebook.cells[-1].outputs[0].data["text/plain"].strip("'")
    assert not Path(folder).exists()


def test_the_start_of_each_cell_is_reported(read: Read, servers: Servers, tmp_path: Path) -> None:
    """The live table shows how many cells have started."""
    runs = planner.runs([read()], [], [])
    events = engine.execute(runs, tmp_path / "runs", LocalExecutor(), servers=servers)
    seen = [(event.cell, event.cells) for event in events if isinstance(event, CellStarted)]
    assert seen == [(i, 6) for i in range(6)]  # one more: the parameters of the run
