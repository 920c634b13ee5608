"""The modules of a lesson that its notebook writes beside itself."""

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ci.handout import notebook
from ci.handout.translations import translations

LABELS = translations("en")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with a subpackage, and a module, beside a lesson."""
    (tmp_path / "parallel/inner").mkdir(parents=True)
    (tmp_path / "parallel/__init__.py").write_text("")
    (tmp_path / "parallel/network.py").write_text("SIZE = 1\n")
    (tmp_path / "parallel/inner/deep.py").write_text("%magic = 'ö'\n", encoding="utf-8")
    (tmp_path / "alone.py").write_text("A = 2\n")
    return tmp_path


def code(source: str) -> NotebookNode:
    """A code cell."""
    return new_code_cell(source, id="own")


def test_a_package_is_written_whole(folder: Path) -> None:
    """A rank may import modules that the cell does not import."""
    cells = with_modules([code("from parallel.network import SIZE")], folder)
    assert [cell.source.splitlines()[0] for cell in cells[2:-1]] == [
        "%%writefile parallel/__init__.py",
        "%%writefile parallel/inner/deep.py",
        "%%writefile parallel/network.py",
    ]


@pytest.mark.parametrize(
    "source", ["import torch\nimport numpy as np", "%matplotlib inline", "x ="]
)
def test_other_imports_write_nothing(folder: Path, source: str) -> None:
    """Installed packages, magics, and cells that are not Python."""
    cells = [code(source), new_markdown_cell("import alone")]
    assert with_modules(cells, folder) == cells


def test_the_files_are_written_before_the_first_import(folder: Path) -> None:
    """After their folders, with an explanation for the reader."""
    cells = [code("import torch"), code("def f():\n    import alone, parallel.network"), code("1")]
    made = with_modules(cells, folder)
    assert [cell.source.splitlines()[0] for cell in made] == [
        "import torch",
        LABELS["files"],
        "from pathlib import Path",
        "%%writefile alone.py",
        "%%writefile parallel/__init__.py",
        "%%writefile parallel/inner/deep.py",
        "%%writefile parallel/network.py",
        "def f():",
        "1",
    ]
    assert 'Path("parallel/inner").mkdir(parents=True, exist_ok=True)' in made[2].source


def test_a_notebook_with_files_is_valid(folder: Path) -> None:
    """Each cell has a unique id that nbformat accepts."""
    cells = with_modules([code("import parallel")], folder)
    nbformat.validate(new_notebook(cells=cells))
    assert len({cell.id for cell in cells}) == len(cells)


def with_modules(cells: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    """The cells, with those that write modules of the folder."""
    return notebook.with_modules(cells, folder, LABELS)
