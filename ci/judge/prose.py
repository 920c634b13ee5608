"""The prose of a lesson as it is now, with the outputs of an execution before it changed."""

import copy

from ci.lesson.node import NotebookNode

INJECTED = "injected-parameters"  # the id of the cell that sets the parameters of a run


def with_current_prose(written: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The cells of the notebook `written`, with the outputs of the notebook `executed`.

    Returns `executed` itself if its code is not that of `written`.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    own = [cell for cell in ran if cell.id != INJECTED]
    code = [cell for cell in written.cells if cell.cell_type == "code"]
    if [cell.source for cell in own] != [cell.source for cell in code]:
        return executed
    notebook = copy.deepcopy(written)
    notebook.metadata = executed.metadata
    outputs = iter(own)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            source = next(outputs)
            cell.outputs, cell.execution_count = source.outputs, source.execution_count
    _insert_injected(notebook, ran)
    return notebook


def _insert_injected(notebook: NotebookNode, ran: list[NotebookNode]) -> None:
    """Put the parameters' cell after the code cell that it followed."""
    for number, cell in enumerate(ran):
        if cell.id == INJECTED:
            code = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code"]
            notebook.cells.insert(code[number - 1] + 1 if number else 0, cell)
