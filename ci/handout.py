"""An executed notebook to the handouts that students get: HTML, PDF and notebook, in each language.

`prepare` makes one language's notebook, with all that its handout says in its metadata; the
exporters set it, and `write` lays the files where the course page expects them.
"""

import ast
import copy
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from ci import markdown
from ci.agreement import Matrix
from ci.check import Result
from ci.course import CELL_WORDS, KERNELSPEC, LANGUAGES, Lesson
from ci.exporters import TEMPLATES, HandoutHTMLExporter, HandoutPDFExporter, words
from ci.paper import check_formulas
from ci.parameters import Value
from ci.value import MIME

__all__ = [
    "Handout",
    "HandoutHTMLExporter",
    "HandoutPDFExporter",
    "check_formulas",
    "index",
    "prepare",
    "sweep",
    "write",
]

MARKS = {"verified": "✓", "given": "○", "differs": "✗", "missing": "✗", "invalid": "✗"}
ROW = ("shown", "expected", "tolerance", "margin", "device")


@dataclass(frozen=True)
class Handout:
    """All that a lesson's handouts say. `facts` are those of the run, by keys such as `torch` and
    `date` (2026-11-23 21:05 UTC); `notes` stand at the top, each in each language. `green` is
    false for a run that is not verified, whatever its checks say; `home` leads to the index."""

    lesson: Lesson
    notebook: NotebookNode
    results: Sequence[Result]
    parameters: Mapping[str, Value]
    facts: Mapping[str, str]
    notes: Sequence[Mapping[str, str]] = field(default=())
    green: bool = True
    home: str = "../index.html"


def write(handout: Handout, folder: Path) -> list[Path]:
    """Write `{en,zh}/<lesson>.{html,pdf,ipynb}` below `folder`; the six paths."""
    paths = []
    for language in LANGUAGES:
        prepared = prepare(handout, language)
        contents = {
            "html": HandoutHTMLExporter().from_notebook_node(prepared)[0].encode(),
            "pdf": HandoutPDFExporter().from_notebook_node(prepared)[0],
            "ipynb": notebook(prepared).encode(),
        }
        for ending, content in contents.items():
            path = folder / language / f"{handout.lesson.name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
    return paths


def prepare(handout: Handout, language: str) -> NotebookNode:
    """The notebook of one language, with what its handout says in `metadata["handout"]`."""
    say = words(language)
    about = {
        "name": handout.lesson.name,
        "title": handout.lesson.titles[language],
        "language": language,
        "other": next(other for other in LANGUAGES if other != language),
        "home": handout.home,
        "summary": _summary(handout, say),
        "green": handout.green and all(result.green for result in handout.results),
        "rows": [_row(result, say) for result in handout.results],
        "facts": dict(handout.facts),
        "notes": [note[language] for note in handout.notes],
        "places": {c.id: handout.lesson.where(c.id) for c in handout.lesson.notebook.cells},
    }
    cells = [
        _cell(cell, handout.parameters)
        for cell in handout.notebook.cells
        if cell.metadata.get("lang", language) == language
        and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    prepared: NotebookNode = nbformat.from_dict(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {
                "kernelspec": KERNELSPEC,
                "language_info": {"name": "python"},
                "handout": about,
            },
            "cells": cells,
        }
    )
    return prepared


def _cell(cell: NotebookNode, parameters: Mapping[str, Value]) -> NotebookNode:
    cell = copy.deepcopy(cell)
    if "parameters" in cell.metadata.get("tags", []):
        cell.source = _with_values(cell.source, parameters)
    cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in CELL_WORDS and v})
    if cell.cell_type == "code":
        cell.outputs = [_output(output) for output in cell.outputs]
        if cell.metadata.keys() & {"check", "given"}:
            _keep_text(cell)
    return cell


def _keep_text(cell: NotebookNode) -> None:
    """Of a value that was compared, show the text alone: other formats might say otherwise."""
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.data = NotebookNode({"text/plain": output.data.get("text/plain", "")})


def _with_values(source: str, values: Mapping[str, Value]) -> str:
    """A parameters cell with `values` for its literals; annotations and comments stay."""
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for statement in reversed(ast.parse(source).body):  # those before keep their columns
        assert isinstance(statement, ast.AnnAssign)
        assert isinstance(statement.target, ast.Name)
        assert statement.value
        old, name = statement.value, statement.target.id
        if name in values and values[name] != ast.literal_eval(old):
            row, start, end = old.lineno - 1, old.col_offset, old.end_col_offset
            lines[row] = lines[row][:start] + _literal(values[name]).encode() + lines[row][end:]
    return b"".join(lines).decode()


def _literal(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _output(output: NotebookNode) -> NotebookNode:
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


def _summary(handout: Handout, say: Mapping[str, str]) -> str:
    checks = [result for result in handout.results if result.check.kind != "given"]
    if bad := sum(not result.green for result in handout.results):
        return say["some differ"].format(len(handout.results), bad)
    if not handout.green:
        return say["not verified"]
    return say["all verified"].format(len(checks)) if checks else say["no checks"]


def _row(result: Result, say: Mapping[str, str]) -> dict[str, Any]:
    """A row of the table of checks, all of it text."""
    exact = result.tolerance == "exact"
    said = {
        "shown": result.shown,
        "expected": say["as given"] if result.status == "given" else result.expected,
        "tolerance": re.sub("exact|rel|abs", lambda word: say[word[0]], result.tolerance),
        "margin": "" if exact or result.margin is None else _percent(result.margin),
        "device": ", ".join(result.devices),
    }
    return {
        "name": result.check.name,
        "cell": result.check.cell,
        "mark": MARKS[result.status],
        "status": say[result.status],
        "green": result.green,
        "message": result.message,
        "derivation": result.derivation,
        **{key: said[key] or "–" for key in ROW},
    }


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def notebook(prepared: NotebookNode) -> str:
    """The notebook that students open: a prepared one, its metadata as Markdown cells."""
    edition = copy.deepcopy(prepared)
    about = edition.metadata.pop("handout")
    language = {"lang": about.language}
    if about.notes:
        text = "\n>\n".join(f"> **{_escaped(note)}**" for note in about.notes)
        edition.cells.insert(0, new_markdown_cell(text, id="notes", metadata=language))
    table = "\n".join(_table(about))
    edition.cells.append(new_markdown_cell(table, id="checks", metadata=language))
    return str(nbformat.writes(edition, version=4)) + "\n"


def _table(about: NotebookNode) -> Iterator[str]:
    """The table of checks and the facts, in Markdown."""
    say = words(about.language)
    if about.rows:
        yield f"## {say['checks']}\n\n{say['checks say']}\n"
        columns = ["check", *ROW, "derivation"]
        yield "| " + " | ".join(say[column] for column in columns) + " |"
        yield "|---" * len(columns) + "|"
    for row in about.rows:
        name = f"{row.mark} [{_escaped(row.name)}](#cell-id={row.cell})"
        fault = "" if row.green else f" **{row.status}**: {_escaped(row.message)}"
        cells = [name + fault, *(_escaped(row[column]) for column in [*ROW, "derivation"])]
        yield "| " + " | ".join(cells) + " |"
    yield f"\n## {say['environment']}\n"
    for key, fact in about.facts.items():
        yield f"- {_escaped(say.get(key, key))}: {_escaped(fact)}"


def _escaped(text: str) -> str:
    """`text` as Markdown that means just this text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|$~&-])", r"\\\1", " ".join(text.split()))


def index(entries: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, str]] = ()) -> str:
    """The course page. An entry is a lesson: its `name`, `titles`, `status`, `checks` (how many),
    and `facts`."""
    return _page(entries, notes, sweep=False, handouts=True, agreed=())


def sweep(
    entries: Sequence[Mapping[str, Any]],
    notes: Sequence[Mapping[str, str]] = (),
    *,
    handouts: bool = False,
    agreed: Sequence[Matrix] = (),
) -> str:
    """The summary of a sweep. Its entries are runs: they also have a `label`, a `reason` and the
    `folder` where their `handouts` are, if they have any. `agreed` says how far they agree."""
    return _page(entries, notes, sweep=True, handouts=handouts, agreed=agreed)


def _page(
    entries: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, str]], **kind: Any
) -> str:
    say = {language: words(language) for language in LANGUAGES}
    page = _pages().get_template("index.html.j2")
    return page.render(entries=entries, notes=notes, words=say, **kind)


@functools.cache
def _pages() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
