"""Outputs that stand in a handout although nobody compared them."""

from ci.judge.listings import LISTING
from ci.lesson.node import NotebookNode

IMAGES = {"image/svg+xml", "image/png", "image/jpeg"}


def not_compared(notebook: NotebookNode) -> set[str]:
    """The ids of the executed cells with an output that is shown but not compared.

    Printed text is compared only by `stdout=`, a result only by `check=` and `given=`, and a
    displayed object never. The figures of `figure` cells, errors and listings do not count.
    """
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return {
        str(cell.id)
        for cell in cells
        if any(is_not_compared(cell, output) for output in cell.outputs)
    }


def compares_result(cell: NotebookNode) -> bool:
    """Whether the result of `cell` is compared. With `raises=`, only the type of its error is."""
    return bool({"check", "given"} & cell.metadata.keys()) and "raises" not in cell.metadata


def is_not_compared(cell: NotebookNode, output: NotebookNode) -> bool:
    """Whether an output of `cell` is shown but not compared."""
    match output.output_type:
        case "stream":
            compared = output.name == "stdout" and {"stdout", LISTING} & cell.metadata.keys()
            return bool(output.text.strip()) and not compared
        case "execute_result":
            return not compares_result(cell)
        case "display_data":
            return not ("figure" in cell.metadata.get("tags", []) and IMAGES & output.data.keys())
    return False
