"""A handout of a small lesson, with a check, a given and an error in it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from ci.handout.handout import Handout
from ci.judge.outcome import Outcome, Result
from ci.lesson.lesson import Check, Lesson
from ci.lesson.parameters import Value
from ci.lesson.value import MIME
from ci.plan.planner import Run
from tests.conftest import Read

LESSON = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown] lang="en"
# # Gradients
#
# An English sentence about **slopes**, $\\nabla f \\odot x$.
#
# | a | b |
# |---|---|
# | 1 | $x_2$ |

# %% [markdown] lang="zh"
# # 梯度
#
# 一句关于**斜率**的中文，$\\nabla f \\odot x$。

# %% tags=["parameters"]
size: int = 4  # 长度, the length
device: str = "cpu"  # where the tensors live

# %% check="gradient"
2 * size

# %% given="draws"
draws

# %% raises="ValueError"
int("x")

# %%
print("hello")
"""

TRACEBACK = """\
\x1b[31m----------\x1b[39m
\x1b[31mValueError\x1b[39m            Traceback (most recent call last)
Cell \x1b[32mIn[5]\x1b[39m, line 1
----> 1 int("x")

File ~/.venv/lib/python3.11/deep.py:12, in int(x)
     11 def int(x):
---> 12     raise

File /opt/python/lib/deeper.py:12, in int(x)
---> 12     raise

ValueError: invalid literal in /home/me/secret/file.py"""

RESULTS = (
    Result(
        Check("gradient", "value", "cell-3", 20),
        "verified",
        shown="8.0",
        expected="8.000001",
        derivation="dy/dx = 2 size.",
        tolerance="2e-6 rel",
        margin=0.25,
        devices=("cpu",),
    ),
    Result(
        Check("draws", "given", "cell-4", 23), "given", shown="[7 7]", expected="given, not derived"
    ),
    Result(
        Check("raises_at_line_26", "raises", "cell-5", 26, "ValueError"),
        "verified",
        shown="ValueError",
        expected="ValueError",
        derivation="The cell must raise ValueError.",
        tolerance="exact",
        margin=0.0,
    ),
)

FACTS = {"torch": "2.13.0+cpu", "device": "cpu (a small one)", "date": "2026-11-23 21:05 UTC"}
Make = Callable[..., Handout]


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """The lesson above, read."""
    return read(LESSON, header="", name="03_gradients")


@pytest.fixture
def make(lesson: Lesson) -> Make:
    """A handout of the lesson; `outputs` are those of its last cell."""

    def make(
        *outputs: NotebookNode,
        results: Sequence[Result] = RESULTS,
        parameters: Mapping[str, Value] | None = None,
        **changes: Any,
    ) -> Handout:
        executed = copy.deepcopy(lesson.notebook)
        cells = {cell.id: cell for cell in executed.cells}
        for number, cell in enumerate(c for c in executed.cells if c.cell_type == "code"):
            cell.execution_count = number + 1
            cell.metadata["papermill"] = {"status": "completed"}
        injected = new_code_cell("size = 8", id="injected-parameters")
        injected.metadata["tags"] = ["injected-parameters"]
        executed.cells.insert(3, injected)
        data = {"text/plain": "tensor(8.)", MIME: {"kind": "float", "value": "8.0"}}
        cells["cell-3"].outputs = [new_output("execute_result", data, execution_count=3)]
        cells["cell-5"].outputs = [
            new_output(
                "error",
                ename="ValueError",
                evalue="invalid literal in /home/me/secret/file.py",
                traceback=TRACEBACK.splitlines(),
            )
        ]
        cells["cell-6"].outputs = list(outputs) or [new_output("stream", text="hello\n")]
        run = Run(lesson, parameters or {"size": 8, "device": "cpu"})
        outcome = Outcome(run, "verified", tuple(results), notebook=executed)
        return replace(Handout(outcome, FACTS), **changes)

    return make
