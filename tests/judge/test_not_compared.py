"""Which outputs of an executed notebook nobody compared."""

from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ci.judge.not_compared import not_compared

PRINTED = new_output("stream", name="stdout", text="4.0\n")
WARNED = new_output("stream", name="stderr", text="careful\n")
RESULT = new_output("execute_result", {"text/plain": "4"}, execution_count=1)
DISPLAYED = new_output("display_data", {"text/plain": "4"})
FIGURE = new_output("display_data", {"image/svg+xml": "<svg/>"})
ERROR = new_output("error", ename="ValueError", evalue="", traceback=[])


@pytest.mark.parametrize(
    ("output", "metadata", "counts"),
    [
        (PRINTED, {}, True),
        (PRINTED, {"check": "a"}, True),
        (PRINTED, {"stdout": "a"}, False),
        (WARNED, {"stdout": "a"}, True),
        (RESULT, {}, True),
        (RESULT, {"check": "a"}, False),
        (RESULT, {"given": "a"}, False),
        (RESULT, {"check": "a", "raises": "ValueError"}, True),
        (DISPLAYED, {"check": "a"}, True),
        (DISPLAYED, {"tags": ["figure"]}, True),
        (FIGURE, {"tags": ["figure"]}, False),
        (FIGURE, {}, True),
        (new_output("display_data", {"image/jpeg": "AA"}), {"tags": ["figure"]}, False),
        (ERROR, {"raises": "ValueError"}, False),
        (new_output("stream", name="stdout", text="\n"), {}, False),
    ],
)
def test_what_no_check_reads_is_not_compared(
    output: NotebookNode, metadata: dict[str, Any], counts: bool
) -> None:
    """A check reads the result of its cell, `stdout=` the printed text, and nothing a display."""
    cell = new_code_cell("4", metadata=metadata, outputs=[output], id="cell-1")
    assert not_compared(new_notebook(cells=[cell])) == ({"cell-1"} if counts else set())
