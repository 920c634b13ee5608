"""A lesson's own modules in a notebook."""

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ci.handout import vendor

SAID = "They are written here."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with a folder in it, and a module, beside a lesson."""
    (tmp_path / "parallel/inner").mkdir(parents=True)
    (tmp_path / "parallel/__init__.py").write_text("")
    (tmp_path / "parallel/network.py").write_text("SIZE = 1\n")
    (tmp_path / "parallel/inner/deep.py").write_text("%magic = 'ö'\n", encoding="utf-8")
    (tmp_path / "alone.py").write_text("A = 2\n")
    return tmp_path


def code(source: str) -> NotebookNode:
    """A code cell."""
    return new_code_cell(source, id="own")


def test_a_package_is_carried_whole(folder: Path) -> None:
    """Whatever part of it a cell imports; a rank may import the others."""
    found = vendor.files([code("from parallel.network import SIZE")], folder)
    assert set(found) == {
        "parallel/__init__.py",
        "parallel/network.py",
        "parallel/inner/deep.py",
    }


@pytest.mark.parametrize(
    "source", ["import torch\nimport numpy as np", "%matplotlib inline", "x ="]
)
def test_what_is_no_neighbour_is_not_carried(folder: Path, source: str) -> None:
    """Installed packages, magics, and what is not Python."""
    assert vendor.files([code(source), new_markdown_cell("import alone")], folder) == {}


def test_the_files_are_written_before_the_first_import(folder: Path) -> None:
    """With their folders before them, and a word to the reader."""
    cells = [code("import torch"), code("def f():\n    import alone, parallel.network"), code("1")]
    texts = vendor.files(cells, folder)
    made = vendor.insert(cells, texts, SAID)
    assert [cell.source.splitlines()[0] for cell in made] == [
        "import torch",
        SAID,
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
    """Each cell has an id of its own that nbformat takes."""
    cells = vendor.insert(
        [code("import parallel")], vendor.files([code("import parallel")], folder), SAID
    )
    nbformat.validate(new_notebook(cells=cells))
    assert len({cell.id for cell in cells}) == len(cells)


def test_without_files_nothing_is_said() -> None:
    """A notebook that needs none stays as it is."""
    cells = [code("import torch")]
    assert vendor.insert(cells, {}, SAID) == cells
