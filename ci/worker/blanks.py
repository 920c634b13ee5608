"""The blanks of exercises, executed at the end of a lesson as in the notebook that students get.

There, they follow the parameters and the setup alone.
"""

import copy
from collections.abc import Sequence

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ci.lesson.exercises import SETUP, Exercise, tags

DEADLINE_S = 20  # for each cell: `while ...` never ends
BEFORE = {"parameters", "injected-parameters", SETUP}  # the tags of cells that blanks can use


def cells(executed: NotebookNode, exercises: Sequence[Exercise]) -> list[NotebookNode]:
    """The cells to execute after those of the lesson: the blanks are the last ones."""
    before = [cell for cell in executed.cells if BEFORE & {*tags(cell)}]
    blanks = [exercise.blank for exercise in exercises]
    copies = copy.deepcopy([*before, *blanks])
    for blank in copies[len(before) :]:
        blank.metadata |= {"tags": ["raises-exception"], "raises": "any error"}
    return [new_code_cell("%reset -f"), *copies]


def outputs(cells: Sequence[NotebookNode], exercises: Sequence[Exercise]) -> dict[str, object]:
    """What each blank shows, by the name of its exercise."""
    blanks = cells[-len(exercises) :]
    return {e.name: blank.outputs for e, blank in zip(exercises, blanks, strict=True)}
