"""The parts of a lesson's notebook, which are used as nbformat's."""

import copy
import pickle

import nbformat
import pytest

from ci.lesson import script
from ci.lesson.node import NotebookNode, copied

TEXT = "# %% check='a'\n1\n# %% [markdown]\n# text\n"


def test_a_key_is_an_attribute() -> None:
    """For reading and for writing, of one value."""
    cell = NotebookNode(source="1")
    cell.id = "cell-1"
    assert (cell.source, cell["id"], cell) == ("1", "cell-1", {"source": "1", "id": "cell-1"})


def test_a_missing_key_is_no_attribute() -> None:
    """As `getattr` with a default expects it."""
    cell = NotebookNode()
    assert getattr(cell, "attachments", None) is None
    with pytest.raises(AttributeError, match="source"):
        cell.source  # noqa: B018


@pytest.mark.parametrize(
    "duplicate", [copied, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copy_shares_nothing(duplicate: object) -> None:
    """It has the same attributes, down to the metadata of its cells."""
    notebook = script.parse(TEXT)
    made = duplicate(notebook)  # type: ignore[operator]
    assert made == notebook
    made.cells[0].metadata.check = "b"
    assert notebook.cells[0].metadata.check == "a"


def test_nbformat_takes_it_for_its_own() -> None:
    """A lesson is valid once its cells have ids, and is written as nbformat writes it."""
    notebook = script.parse(TEXT)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    notebook.metadata = NotebookNode()
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) == nbformat.writes(nbformat.from_dict(notebook))
