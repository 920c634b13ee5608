"""`stdout="name"`: the text that a cell prints in a kernel is compared with derived text.

The cases are from this project's own reviews.
"""

from pathlib import Path

import pytest

from ci.judge import verdicts
from ci.lesson import oracle, reader
from ci.plan import planner
from tests.conftest import HEADER, Write, executions

PRINTS = """\
# %% stdout="losses"
for step in range(2):
    print(f"step {step}, loss {10 / 3 ** (step + 1):.4f}")
"""
LOSSES = '''\
def losses(size):
    """Each step divides the loss by 3, beginning at 10."""
    return "step 0, loss 3.3333\\nstep 1, loss {loss}\\n"
'''


@pytest.mark.kernel
def test_what_a_cell_prints_is_compared(tmp_path: Path, write: Write) -> None:
    """Numbers within the tolerance of what is printed; one execution, three expected texts."""
    path = write(PRINTS, header=HEADER, expected=LOSSES)
    lesson = reader.read(path)
    run = planner.Run(lesson, lesson.defaults)
    (execution,) = executions([run], tmp_path / "runs")
    statuses = {}
    for loss in ("1.1111", "1.2", "nearly 1"):
        write(PRINTS, header=HEADER, expected=LOSSES.replace("{loss}", loss))
        outcome = verdicts.judge(execution, oracle.load(lesson))
        statuses[loss] = [result.status for result in outcome.results]
    assert statuses == {"1.1111": ["verified"], "1.2": ["differs"], "nearly 1": ["differs"]}
