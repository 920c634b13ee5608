"""A lesson's script as text and as cells: py:percent, by jupytext, which starts slowly."""

from nbformat import NotebookNode


def parse(text: str) -> NotebookNode:
    """The cells of a script, and what they and its header say of themselves."""
    import jupytext

    notebook: NotebookNode = jupytext.reads(text, fmt="py:percent")
    return notebook


def write(notebook: NotebookNode) -> str:
    """The script that has these cells."""
    import jupytext

    return str(jupytext.writes(notebook, fmt="py:percent"))
