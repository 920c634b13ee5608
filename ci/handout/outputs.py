"""The outputs of a cell as every format can show them, with the same bytes in each run.

Text is what a terminal would show at the end. An output that no format can show is named.
"""

import re
from collections.abc import Mapping

import nh3

from ci.handout import terminal
from ci.handout.html import HTML_TAGS, clean
from ci.handout.markdown import plain
from ci.judge.not_compared import compares_result
from ci.lesson.node import NotebookNode

SHOWN = {"image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex", "text/plain"}
WIDGET = "application/vnd.jupyter.widget-view+json"
OBJECT = re.compile(r"^<([\w.]+)(?: object| at 0x\w+| object at 0x\w+)>$")
# Objects of plotting libraries as text: an artist, several, or the text of a title.
DRAWN = re.compile(r"<(?:matplotlib|mpl_toolkits|seaborn)\.|<[A-Z]\w*Container object of|\AText\(")
TAG = re.compile(r"<([a-zA-Z][\w-]*)")
LONGEST = 30  # lines of a text that stands in for HTML
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{5,}")

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def settle(cell: NotebookNode, labels: Mapping[str, str]) -> None:
    """Replace the outputs of a code cell by outputs that can be shown, in place.

    The objects that a drawing function returns are left out beside their figure. A result that was
    compared stays as it is.
    """
    kinds = ["display_data"] if compares_result(cell) else ["display_data", "execute_result"]
    if any("image/png" in output.get("data", {}) for output in cell.outputs):
        cell.outputs = [
            out for out in cell.outputs if out.output_type not in kinds or not _is_drawn(out)
        ]
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = terminal.shown(output.text)
        elif output.output_type in kinds:
            output.data = NotebookNode(_settable(output.data, labels))


def _is_drawn(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return set(data) == {"text/plain"} and bool(DRAWN.search(data["text/plain"]))


def _settable(data: Mapping[str, object], labels: Mapping[str, str]) -> dict[str, str]:
    found = {kind: text for kind, text in data.items() if kind in SHOWN and isinstance(text, str)}
    text = found.pop("text/plain", "")
    if isinstance(page := data.get("text/html"), str) and _is_words(page):
        found["text/html"] = str(clean(page))  # without identifiers, which differ in each run
        text = "" if OBJECT.match(text) else text
    elif page and text.count("\n") > LONGEST:  # the data of a drawing, for example
        text = ""
    elif page and not found and text and not OBJECT.match(text):
        text = f"{text}\n{labels['as text']}"
    alone = data.keys() == {"text/plain"}  # an object that has no other form to be shown in
    if found or (text.strip() and (alone or not OBJECT.match(text)) and WIDGET not in data):
        return {**found, **({"text/plain": _without_addresses(text)} if text else {})}
    return {"text/plain": labels["not in the handout"].format(_name(data, text))}


def _is_words(page: str) -> bool:
    """Whether HTML is a table, or words of which sanitising removes nothing."""
    tags = {tag.lower() for tag in TAG.findall(page)}
    words = nh3.clean(page, tags=set()).strip()
    return bool(words) and ("table" in tags or tags <= HTML_TAGS)


def _name(data: Mapping[str, object], text: str) -> str:
    """The type of an object that cannot be shown, or its formats."""
    if named := OBJECT.match(text):
        return named[1]
    if WIDGET in data and (called := re.match(r"\w+(?=\()", text)):
        return called[0]
    return ", ".join(sorted(data.keys() - {"text/plain"}))


def _without_addresses(text: str) -> str:
    return ADDRESS.sub("", terminal.shown(text))


def short_traceback(error: NotebookNode) -> str:
    """The frames in the notebook's own cells, `…` for those of libraries, and the last line with
    its notes; before them, the errors that it was raised from."""
    text = plain("\n".join(error.traceback)).rpartition(CONTEXT)[2]
    *causes, final = text.split(CAUSE)
    last = f"{error.ename}: {plain(error.evalue)}"
    frames, found, notes = final.rpartition(last)
    told = [*map(_cause, causes), _shortened(frames if found else final, last + notes.rstrip())]
    return f"\n\n{CAUSE}\n\n".join(told)


def _cause(text: str) -> str:
    head = text.partition("Traceback (most recent call last)")[0].split()
    name = head[-1] if head else "\n\n"
    frames, _, message = text.rstrip().rpartition(f"\n{name}")
    return _shortened(frames, f"{name}{message}")


def _shortened(frames: str, last: str) -> str:
    parts = []
    frames = frames.rpartition("Traceback (most recent call last)")[2].strip("\n")
    for block in frames.split("\n\n"):
        if block.lstrip().startswith("Cell In["):
            parts.append(block.rstrip())
        elif block.startswith("File ") and parts[-1:] != ["…"]:
            parts.append("…")
    return "\n\n".join([*parts, without_folders(last)])


def without_folders(text: str) -> str:
    """`text` with file names in the place of absolute paths: `…/functional.py`."""
    return re.sub(r"(?<![\w.:/~])~?/(?:[^\s/'\"]+/)+", "…/", text)
