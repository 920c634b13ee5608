"""A lesson's own modules, written into a notebook, so that it runs where the course is not."""

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

FOLDED = {"jupyter": {"source_hidden": True}}  # JupyterLab shows a bar, and the source at a click


def files(cells: Sequence[NotebookNode], folder: Path) -> dict[str, str]:
    """The files below `folder` that code cells import, with their texts; a package is whole."""
    found: dict[str, str] = {}
    for name in sorted({name for cell in cells for name in _imports(cell)}):
        module = folder / f"{name}.py"
        for path in [module] if module.is_file() else sorted((folder / name).rglob("*.py")):
            found[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
    return found


def insert(
    cells: Sequence[NotebookNode], texts: Mapping[str, str], said: str
) -> list[NotebookNode]:
    """`cells`, and before the first that imports one of the files, cells that write them all.

    `said` is what a reader is told there.
    """
    names = {Path(name).parts[0].removesuffix(".py") for name in texts}
    first = next((i for i, cell in enumerate(cells) if names & _imports(cell)), len(cells))
    return [*cells[:first], *(_written(texts, said) if texts else []), *cells[first:]]


def _imports(cell: NotebookNode) -> set[str]:
    """The modules that a cell imports, by the first part of their names."""
    found: set[str] = set()
    if cell.cell_type == "code":
        with contextlib.suppress(SyntaxError):  # a magic of IPython's
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return found


def _written(texts: Mapping[str, str], said: str) -> Iterator[NotebookNode]:
    yield new_markdown_cell(said, id="files")
    folders = sorted({Path(name).parent.as_posix() for name in texts} - {"."})
    if folders:
        lines = [f'Path("{folder}").mkdir(parents=True, exist_ok=True)' for folder in folders]
        source = "\n".join(["from pathlib import Path", "", *lines])
        yield new_code_cell(source, id="folders", metadata=FOLDED)
    for name, text in texts.items():
        yield new_code_cell(f"%%writefile {name}\n{text}", id=_id(name), metadata=FOLDED)


def _id(name: str) -> str:
    """An id that nbformat takes: letters, digits and dashes, up to 64 of them."""
    return f"file-{re.sub('[^A-Za-z0-9]', '-', name)}"[:64]
