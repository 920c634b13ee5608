"""The executed notebook as a file."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def save(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # the lesson may have put a link there
    partial.write_text(nbformat.v4.writes(notebook, split_lines=False), encoding="utf-8")
    partial.replace(path)


def tidy(notebook: NotebookNode) -> None:
    """Remove Papermill's own metadata; the states of cells in it cannot be trusted."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = list(_joined(cell.outputs))


def _joined(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Join the pieces in which the kernel sends printed output, depending on timing."""
    for name, group in groupby(outputs, lambda output: output.get("name", "")):
        several = list(group)
        if name:
            several[0].text = "".join(output.text for output in several)
        yield from several[:1] if name else several
