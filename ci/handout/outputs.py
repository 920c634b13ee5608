"""What a handout keeps of an output: no private value, no folder of this machine, few frames."""

import copy
import re

from nbformat import NotebookNode

from ci.handout import markdown
from ci.lesson.value import MIME


def cleaned(output: NotebookNode) -> NotebookNode:
    """A copy of an output as students get it."""
    output = copy.deepcopy(output)
    output.pop("transient", None)
    if output.output_type == "error":
        output.evalue = _without_paths(markdown.plain(output.evalue))
        output.traceback = _traceback(output).splitlines()
    elif output.output_type == "stream":
        output.text = _without_paths(output.text) if output.name == "stderr" else output.text
    else:
        output.data.pop(MIME, None)
    return output


def _traceback(error: NotebookNode) -> str:
    """The frames in the notebook's own cells and the last line; `…` for those of libraries."""
    text = markdown.plain("\n".join(error.traceback))
    blocks = text.rpartition("Traceback (most recent call last)")[2].strip("\n").split("\n\n")
    said = f"{error.ename}: {error.evalue}"
    parts = []
    for block in blocks:
        if block.lstrip().startswith("Cell In["):
            parts.append(block.removesuffix(said).rstrip())  # of a SyntaxError it is in the frame
        elif block.startswith("File ") and parts[-1:] != ["…"]:
            parts.append("…")
    return "\n\n".join([*parts, said])


def _without_paths(text: str) -> str:
    """`text` with the folders of this machine left out: `…/functional.py`."""
    return re.sub(r"(?<![\w.:/~])~?/(?:[^\s/'\"]+/)+", "…/", text)
