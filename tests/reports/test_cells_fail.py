"""What fails in a cell fails the cell at once, by name, and what it shows is not lost.

Cases without an address are from this project's own reviews.
"""

import sys
import time
from pathlib import Path

import pytest

from ci.lesson import reader
from ci.worker.notebook import execute
from tests.conftest import Executed, executed, write_lesson

pytestmark = pytest.mark.kernel


def run(folder: Path, cells: str) -> Executed:
    """The execution of a lesson with these cells."""
    return executed(reader.read(write_lesson(folder, cells)))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        # https://github.com/nteract/papermill/issues/501 (a magic)
        # https://github.com/nteract/papermill/issues/539, https://github.com/ipython/ipython/issues/12264
        ("!false", "CalledProcessError: Command 'false' returned non-zero exit status 1."),
        ("files = !exit 3", "CalledProcessError: Command 'exit 3' returned non-zero exit status 3"),
        # https://github.com/nteract/papermill/issues/435
        ("exit()", "the lesson left by sys.exit()"),
        ("quit()", "the lesson left by sys.exit()"),
        ("import sys; sys.stdout = None; 1 / 0", "ZeroDivisionError"),
        (r'raise ValueError("\ud800")', r"ValueError: \ud800"),
    ],
)
def test_a_fault_is_reported_at_once(tmp_path: Path, source: str, reason: str) -> None:
    """Neither later, at the deadline, nor as the death of the kernel, nor never."""
    start = time.monotonic()
    verdict = run(tmp_path, f"# %%\n{source}\n")
    assert (verdict.cell, verdict.reason[: len(reason)]) == ("cell-4", reason)
    assert time.monotonic() - start < 60


def test_a_gpu_that_is_lost_in_a_run_is_the_machines_fault(tmp_path: Path) -> None:
    """The reason says what to do; `torch.AcceleratorError` is a RuntimeError with this text."""
    cells = '# %%\nraise RuntimeError("CUDA error: unknown error\\nmore")\n'
    lesson = reader.read(write_lesson(tmp_path, cells))
    verdict = execute(lesson, {}, variables={"CUDA_VISIBLE_DEVICES": "GPU-0"})
    assert verdict.machine_fault
    assert verdict.reason.startswith("RuntimeError: CUDA error: unknown error; the machine is at")
    assert ": see the kernel's log" in verdict.reason


SHOWN = r"""
# %%
print("\ud800 and \udcff")
# %%
import sys; sys.stdout = None
# %%
print("again")
# %%
del sys.stdout
5
# %%
!python -c "import sys; print(sys.executable)"
# %%
import contextvars
variable = contextvars.ContextVar("variable", default=0)
variable.set(7);
# %%
variable.get()
# %% raises="ExceptionGroup"
raise ExceptionGroup("two", [ValueError(1), KeyError(2)])
# %% raises="ExceptionGroup"
try:
    raise ExceptionGroup("two", [ValueError(1), KeyError(2)])
except* ValueError:
    raise RuntimeError("later")
# %% raises="RecursionError"
def forward(x):
    return forward(x)
forward(1)
"""


# https://github.com/jupyter/notebook/issues/2680 (a lone surrogate)
# https://github.com/jupyterlab/jupyterlab/issues/14998 (a group of exceptions)
# https://github.com/ipython/ipykernel/issues/1457 (a context variable)
def test_what_cells_show_is_not_lost(tmp_path: Path) -> None:
    """Lone surrogates are escaped, a stream is repaired, groups of exceptions are errors."""
    verdict = run(tmp_path, SHOWN)
    assert verdict.reason == ""
    *others, recursion = verdict.notebook.cells[-10:]
    printed, _, again, result, python, _, kept, group, later = others
    assert printed.outputs[0].text == "\\ud800 and \\udcff\n"
    assert again.outputs[0].text == "again\n"
    assert result.outputs[0].data["text/plain"] == "5"
    assert Path(python.outputs[0].text.strip()).parent == Path(sys.executable).parent
    assert kept.outputs[0].data["text/plain"] == "7"
    assert [group.outputs[0].ename, later.outputs[0].ename] == ["ExceptionGroup", "ExceptionGroup"]
    assert 'File "<cell>", line 1' in "\n".join(group.outputs[0].traceback)
    assert len(recursion.outputs[0].traceback) < 20  # IPython shows each frame, for a minute
