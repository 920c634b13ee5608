"""An executed notebook to the handouts that students get: HTML, PDF and notebook, in each language.

`prepare` makes one language's notebook, with all that its handout says in its metadata; the
exporters set it, and `write` lays the files where the course page expects them.
"""

import copy
import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from ci import editions, markdown, outputs, page, seal, vendor
from ci.agreement import Matrix
from ci.check import Answer, Result
from ci.course import CELL_WORDS, KERNELSPEC, LANGUAGES, Lesson
from ci.editions import STUDENTS, Edition
from ci.exporters import TEMPLATES, HandoutHTMLExporter, HandoutPDFExporter
from ci.paper import check_formulas
from ci.parameters import Value, with_values
from ci.seal import ROW
from ci.words import words

__all__ = [
    "Handout",
    "HandoutHTMLExporter",
    "HandoutPDFExporter",
    "check_formulas",
    "connect",
    "index",
    "prepare",
    "sweep",
    "write",
]


@dataclass(frozen=True)
class Handout:
    """All that a lesson's handouts say. `facts` are those of the run, by keys such as `torch` and
    `date` (2026-11-23 21:05 UTC); `notes` stand at the top, each in each language. `green` is
    false for a run that is not verified, whatever its checks say; `home` leads to the index.
    `answers` are what the exercises' solutions must show, by their names."""

    lesson: Lesson
    notebook: NotebookNode
    results: Sequence[Result]
    parameters: Mapping[str, Value]
    facts: Mapping[str, str]
    notes: Sequence[Mapping[str, str]] = field(default=())
    green: bool = True
    home: str = "../index.html"
    edition: Edition = STUDENTS
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def workbook(self) -> str:
        """The file name of the notebook of its exercises; empty where there is none."""
        names = {exercise.name for exercise in self.lesson.exercises}
        if not names or names - self.answers.keys():
            return ""
        return f"{self.lesson.name}_{self.edition.workbook}.ipynb"

    def notes_of(self, language: str) -> list[str]:
        """What stands at the top, in one language."""
        marked = [words(language)["theirs"]] if self.edition.solutions else []
        return [*marked, *(note[language] for note in self.notes)]


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
    hidden = editions.hidden(handout.lesson, handout.edition)
    executed = editions.cells(handout.lesson, handout.notebook.cells, handout.edition)
    about = {
        "name": handout.lesson.name,
        "title": handout.lesson.titles[language],
        "language": language,
        "course": say["instructors" if handout.edition.solutions else "course"],
        "workbook": handout.workbook,
        "workbook kind": say[handout.edition.workbook],
        "other": next(other for other in LANGUAGES if other != language),
        "home": handout.home,
        "summary": seal.summary(handout.results, say, green=handout.green),
        "green": handout.green and all(result.green for result in handout.results),
        "rows": [seal.row(result, say, hidden) for result in handout.results],
        "facts": dict(handout.facts),
        "unverified": [
            say[key] for key in seal.unverified(handout.lesson, handout.parameters, handout.results)
        ],
        "notes": handout.notes_of(language),
        "places": {cell.id: handout.lesson.where(cell.id) for cell in executed},
        "files": vendor.files(executed, handout.lesson.path.parent),
    }
    cells = [
        _cell(cell, handout.parameters)
        for cell in executed
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
        cell.source = with_values(cell.source, parameters)
    cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in CELL_WORDS and v})
    if cell.cell_type == "code":
        cell.outputs = [outputs.cleaned(output) for output in cell.outputs]
        if cell.metadata.keys() & {"check", "given"}:
            _keep_text(cell)
    return cell


def _keep_text(cell: NotebookNode) -> None:
    """Of a value that was compared, show the text alone: other formats might say otherwise."""
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.data = NotebookNode({"text/plain": output.data.get("text/plain", "")})


def notebook(prepared: NotebookNode) -> str:
    """The notebook that students open: a prepared one, its metadata as Markdown cells."""
    made = copy.deepcopy(prepared)
    about = made.metadata.pop("handout")
    language = {"lang": about.language}
    made.cells = vendor.insert(made.cells, about.files, words(about.language)["files"])
    if about.notes:
        text = "\n\n".join(quoted(about.notes))
        made.cells.insert(0, new_markdown_cell(text, id="notes", metadata=language))
    table = "\n".join(_table(about))
    made.cells.append(new_markdown_cell(table, id="checks", metadata=language))
    return str(nbformat.writes(made, version=4)) + "\n"


def quoted(notes: Sequence[str]) -> list[str]:
    """Notes as Markdown: one quotation, or nothing."""
    return ["\n>\n".join(f"> **{_escaped(note)}**" for note in notes)] if notes else []


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
    if about.unverified:
        yield f"\n**{say['unverified']}**\n"
        yield from (f"- {_escaped(said)}" for said in about.unverified)
    yield f"\n## {say['environment']}\n"
    for key, fact in about.facts.items():
        yield f"- {_escaped(say.get(key, key))}: {_escaped(fact)}"


def _escaped(text: str) -> str:
    """`text` as Markdown that means just this text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|$~&-])", r"\\\1", " ".join(text.split()))


def abstract(lesson: Lesson, language: str) -> str:
    """What a lesson promises: the last paragraph of its first passage; empty where it is a title
    alone. In Markdown."""
    prose = (cell for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    first = next((c.source for c in prose if c.metadata.get("lang", language) == language), "")
    last: str = first.strip().split("\n\n")[-1]
    return "" if last.startswith("#") else last


def connect(entries: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Lead each lesson's pages below `folder` to those before and after it, in place of the
    neighbours that they had: the lessons of a course come and go."""
    template = _templates().get_template("html/neighbours.html.j2")
    around = zip([None, *entries], entries, [*entries[1:], None], strict=False)
    for (before, entry, after), language in itertools.product(around, LANGUAGES):
        path = folder / language / f"{entry['name']}.html"
        said = template.render(before=before, after=after, language=language, words=words(language))
        path.write_text(page.connect(path.read_text("utf-8"), said), "utf-8")


def index(
    entries: Sequence[Mapping[str, Any]],
    notes: Sequence[Mapping[str, str]] = (),
    edition: Edition = STUDENTS,
) -> str:
    """The course page. An entry is a lesson: its `name`, `titles`, `status`, `checks` (how many),
    `workbook` and `facts`; the `abstracts` and `margins` of its checks, where they are known."""
    return _page(entries, notes, edition=edition, sweep=False, handouts=True, agreed=())


def sweep(
    entries: Sequence[Mapping[str, Any]],
    notes: Sequence[Mapping[str, str]] = (),
    *,
    handouts: bool = False,
    agreed: Sequence[Matrix] = (),
) -> str:
    """The summary of a sweep. Its entries are runs: they also have a `label`, a `reason` and the
    `folder` where their `handouts` are, if they have any. `agreed` says how far they agree."""
    return _page(entries, notes, edition=STUDENTS, sweep=True, handouts=handouts, agreed=agreed)


def _page(
    entries: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, str]], **kind: Any
) -> str:
    say = {language: words(language) for language in LANGUAGES}
    template = _templates().get_template("index.html.j2")
    abstracts = [text for entry in entries for text in entry.get("abstracts", {}).values()]
    prose = {text: Markup(said) for text, said in markdown.render(abstracts, "html").items()}
    dots = {e["name"]: list(map(_across, e["margins"])) for e in entries if e.get("margins")}
    return template.render(entries=entries, notes=notes, words=say, prose=prose, dots=dots, **kind)


def _across(margin: float) -> float:
    """Where a margin stands in the plot, from 0 at a millionth or less to 1 at the tolerance."""
    return 1 + math.log10(min(max(margin, 1e-6), 1)) / 6


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
