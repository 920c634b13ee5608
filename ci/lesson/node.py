"""The cells of a lesson, without nbformat: importing it takes longer than reading all lessons."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode as NotebookNode
else:

    class NotebookNode(dict[str, Any]):
        """A notebook or a part of it, used as nbformat's class: a key is also an attribute."""

        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

        def __setattr__(self, name: str, value: Any) -> None:
            self[name] = value

        def __deepcopy__(self, memo: object) -> "NotebookNode":
            return copied(self)


def copied(part: Any) -> Any:
    """A copy of a notebook or of a part of it, several times as fast as `copy.deepcopy`."""
    if isinstance(part, dict):
        return NotebookNode({key: copied(value) for key, value in part.items()})
    return [*map(copied, part)] if isinstance(part, list) else part


def read(path: Path) -> NotebookNode:
    """The executed notebook that the worker wrote, in which no text is a list of lines."""
    notebook: NotebookNode = copied(json.loads(path.read_text(encoding="utf-8")))
    return notebook
