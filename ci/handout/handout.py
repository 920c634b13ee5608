"""An executed notebook to the handouts that students get: HTML, PDF and notebook, in each language.

`prepare` makes one language's notebook, with all that its handout says in its metadata; the
exporters set it, and `write` lays the files where the course page expects them.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from ci.handout import check_table, editions, outputs, provenance, vendor
from ci.handout.check_table import ROW
from ci.handout.editions import STUDENTS, Edition
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.translations import translations
from ci.judge.outcome import Answer, Outcome, Result
from ci.lesson.lesson import CELL_ATTRIBUTES, KERNELSPEC, LANGUAGES, Lesson
from ci.lesson.parameters import Value, with_values


@dataclass(frozen=True)
class Handout:
    """Everything that a lesson's handouts say.

    `provenance` describes the run, by keys such as `torch` and `date` (2026-11-23 21:05 UTC).
    `notes` are shown at the top, each in both languages. `green` is false for a run that is not
    verified, whatever its checks say. `home` is the link to the index. `answers` are the expected
    values of the exercises, by name.
    """

    lesson: Lesson
    notebook: NotebookNode
    results: Sequence[Result]
    parameters: Mapping[str, Value]
    provenance: Mapping[str, str]
    notes: Sequence[Mapping[str, str]] = field(default=())
    green: bool = True
    home: str = "../index.html"
    edition: Edition = STUDENTS
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def workbook(self) -> str:
        """The file name of the notebook of its exercises; empty where there is none."""
        return editions.workbook(self.lesson, self.answers, self.edition)

    def notes_in(self, language: str) -> list[str]:
        """The notes at the top of the handout, in one language."""
        marked = [translations(language)["theirs"]] if self.edition.solutions else []
        return [*marked, *(note[language] for note in self.notes)]


def from_outcome(
    outcome: Outcome,
    notes: Sequence[Mapping[str, str]] = (),
    edition: Edition = STUDENTS,
    known: Mapping[str, str] | None = None,
) -> Handout:
    """The handout of an executed run; `known` is its provenance, if the caller has it already."""
    assert outcome.notebook is not None, "a run that did not run has no handout"
    return Handout(
        lesson=outcome.run.lesson,
        notebook=outcome.notebook,
        results=outcome.results,
        parameters=outcome.run.parameters,
        provenance=provenance.provenance(outcome) if known is None else known,
        notes=notes,
        green=outcome.green,
        home="../" * (1 + len(provenance.run_folder(outcome).parts)) + "index.html",
        edition=edition,
        answers=outcome.answers,
    )


def write(handout: Handout, folder: Path, languages: Sequence[str] = LANGUAGES) -> list[Path]:
    """Write `{en,zh}/<lesson>.{html,pdf,ipynb}` below `folder`; the paths."""
    html, pdf = _exporters()
    paths = []
    for language in languages:
        prepared = prepare(handout, language)
        contents = {
            "html": html.from_notebook_node(prepared)[0].encode(),
            "pdf": pdf.from_notebook_node(prepared)[0],
            "ipynb": notebook_text(prepared).encode(),
        }
        for ending, content in contents.items():
            path = folder / language / f"{handout.lesson.name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
    return paths


@functools.cache
def _exporters() -> tuple[HandoutHTMLExporter, HandoutPDFExporter]:
    """Kept, as their templates take longer to compile than a page takes to set.

    What we prepare is a valid notebook, and stays one: it is looked at once, not at every step.
    """
    return (
        HandoutHTMLExporter(optimistic_validation=True),
        HandoutPDFExporter(optimistic_validation=True),
    )


def prepare(handout: Handout, language: str) -> NotebookNode:
    """The notebook of one language, with what its handout says in `metadata["handout"]`."""
    say = translations(language)
    hidden = editions.hidden(handout.lesson, handout.edition)
    executed = editions.cells(handout.lesson, handout.notebook.cells, handout.edition)
    unverified = check_table.unverified(handout.lesson, handout.parameters, handout.results)
    about = {
        "name": handout.lesson.name,
        "title": handout.lesson.titles[language],
        "language": language,
        "course": say["instructors" if handout.edition.solutions else "course"],
        "workbook": handout.workbook,
        "workbook kind": say[handout.edition.workbook],
        "other": next(other for other in LANGUAGES if other != language),
        "home": handout.home,
        "summary": check_table.summary(handout.results, say, green=handout.green),
        "green": handout.green and all(result.green for result in handout.results),
        "rows": [check_table.row(result, say, hidden) for result in handout.results],
        "provenance": dict(handout.provenance),
        "unverified": [say[key] for key in unverified],
        "notes": handout.notes_in(language),
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
    cell.metadata = NotebookNode(
        {k: v for k, v in cell.metadata.items() if k in CELL_ATTRIBUTES and v}
    )
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


def notebook_text(prepared: NotebookNode) -> str:
    """The notebook that students open: a prepared one, its metadata as Markdown cells."""
    made = copy.deepcopy(prepared)
    about = made.metadata.pop("handout")
    language = {"lang": about.language}
    made.cells = vendor.insert(made.cells, about.files, translations(about.language)["files"])
    if about.notes:
        text = "\n\n".join(quote_notes(about.notes))
        made.cells.insert(0, new_markdown_cell(text, id="notes", metadata=language))
    table = "\n".join(_table(about))
    made.cells.append(new_markdown_cell(table, id="checks", metadata=language))
    return str(nbformat.writes(made, version=4)) + "\n"


def quote_notes(notes: Sequence[str]) -> list[str]:
    """Notes as Markdown: one quotation, or nothing."""
    return ["\n>\n".join(f"> **{_escaped(note)}**" for note in notes)] if notes else []


def _table(about: NotebookNode) -> Iterator[str]:
    """The check table and the provenance, in Markdown."""
    say = translations(about.language)
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
    for key, value in about.provenance.items():
        yield f"- {_escaped(say.get(key, key))}: {_escaped(value)}"


def _escaped(text: str) -> str:
    """`text` as Markdown that means just this text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|$~&-])", r"\\\1", " ".join(text.split()))
