"""What the handouts of a lesson say: one executed run, in each edition and language.

`prepare` makes the notebook of one language. Its metadata holds everything that a handout says
beside the cells, and its cells hold nothing private; converters turn it into HTML and PDF.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.handout import check_table, dialect, outputs
from ci.handout.editions import STUDENTS, Edition, Note, index_name, run_folder
from ci.handout.markdown import plain
from ci.handout.translations import translations
from ci.judge.listings import LISTING
from ci.judge.not_compared import is_not_compared
from ci.judge.outcome import Outcome
from ci.lesson.addresses import addresses
from ci.lesson.exercises import tags
from ci.lesson.lesson import CELL_ATTRIBUTES, KERNELSPEC, Lesson
from ci.lesson.node import NotebookNode, copied
from ci.lesson.parameters import Value, with_values
from ci.lesson.value import MIME


@dataclass(frozen=True)
class Handout:
    """An executed run as one edition shows it, with notes at the top."""

    outcome: Outcome
    provenance: Mapping[str, str]
    notes: Sequence[Note] = ()
    edition: Edition = STUDENTS

    @property
    def lesson(self) -> Lesson:
        """The lesson that was executed."""
        return self.outcome.run.lesson

    @property
    def workbook(self) -> str:
        """The file name of the notebook of its exercises; empty if there is none."""
        return self.edition.workbook_name(self.outcome)

    def notes_in(self, language: str) -> list[str]:
        """The notes at the top, in one language."""
        marked = [translations(language)["not for students"]] if self.edition.solutions else []
        return [*marked, *(note[language] for note in self.notes)]


KEYS = ("torch", "Python", "machine", "image", "Slurm job")  # of an environment


def provenance(outcome: Outcome) -> dict[str, str]:
    """What is known about an execution, by keys that have translations, such as `torch`, `device`
    and `date` (2026-11-23 21:05 UTC)."""
    environment = outcome.environment
    parameters = (f"{name} = {value}" for name, value in outcome.run.parameters.items())
    values = {
        "parameters": ", ".join(parameters),
        "device": outcome.run.device,
        **{key: environment.get(key, "") for key in KEYS},
        "commit": course_commit(outcome.run.lesson.path.parent),
        "date": outcome.date,
        "duration": f"{outcome.seconds:.1f} s",
    }
    return {key: value for key, value in values.items() if value}


def course_commit(folder: Path) -> str:
    """The commit of the course, with `+` if files have changed since; empty outside of Git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty= +", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def prepare(handout: Handout, language: str) -> NotebookNode:
    """The notebook of one language, with everything else that a handout says in
    `metadata["handout"]`."""
    outcome, lesson, edition = handout.outcome, handout.lesson, handout.edition
    assert outcome.notebook is not None, "only a run that was executed has handouts"
    labels, values = translations(language), outcome.run.parameters
    executed = edition.cells(lesson, outcome.notebook.cells)
    loose = {cell.id: positions for cell in executed if (positions := _not_compared(cell))}
    about = {
        "name": lesson.name,
        "title": lesson.titles[language],
        "language": language,
        "other": next((other for other in lesson.languages if other != language), ""),
        "course": labels["instructors" if edition.solutions else "course"],
        "home": "../" * (1 + len(run_folder(outcome).parts)) + index_name(language),
        "workbook": handout.workbook,
        "workbook kind": labels[edition.workbook],
        "links": [(labels[key], url) for key, url in links(outcome, edition, language).items()],
        "notes": handout.notes_in(language),
        **check_table.contents(outcome, labels, edition.hidden(lesson), len(loose)),
        "not compared": loose,
        "provenance": dict(handout.provenance),
        "places": {cell.id: lesson.location(cell.id) for cell in executed},
        "folder": str(lesson.path.parent),
    }
    cells = [
        _prepare_cell(cell, values, lesson.path.parent, labels)
        for cell in executed
        if cell.metadata.get("lang", language) == language
        and "injected-parameters" not in tags(cell)
    ]
    _renumber(cells)
    language_info = {"name": "python"}
    metadata = {"kernelspec": KERNELSPEC, "language_info": language_info, "handout": about}
    prepared: NotebookNode = copied(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    )
    return prepared


def links(outcome: Outcome, edition: Edition, language: str) -> dict[str, str]:
    """The addresses of a lesson elsewhere on the web, which has only the students' edition."""
    if edition.solutions or not outcome.run.is_default:
        return {}
    name = outcome.run.lesson.name
    return {
        key: address.replace("{name}", name).replace("{language}", language)
        for key, address in addresses().items()
    }


def _renumber(cells: Sequence[NotebookNode]) -> None:
    """Number the executed cells 1, 2, 3, since cells of the course's own are left out."""
    executed = [cell for cell in cells if cell.get("execution_count")]
    for number, cell in enumerate(executed, start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


def _not_compared(cell: NotebookNode) -> list[int]:
    """The positions of the outputs of a cell that are shown but not compared."""
    found = enumerate(cell.get("outputs", []))
    return [position for position, output in found if is_not_compared(cell, output)]


def _prepare_cell(
    cell: NotebookNode, values: Mapping[str, Value], folder: Path, labels: Mapping[str, str]
) -> NotebookNode:
    cell = copied(cell)
    if cell.cell_type == "markdown":
        dialect.attach(cell, folder)
    if "parameters" in tags(cell):
        cell.source = with_values(cell.source, values)
    cell.metadata = NotebookNode(
        {k: v for k, v in cell.metadata.items() if k in [*CELL_ATTRIBUTES, LISTING] and v}
    )
    if cell.cell_type == "code":
        for output in cell.outputs:
            _clean(output)
            if output.output_type == "execute_result" and {"check", "given"} & {*cell.metadata}:
                # Other formats could show another value than the text that was compared.
                output.data = NotebookNode({"text/plain": output.data.get("text/plain", "")})
        outputs.settle(cell, labels)
    return cell


def _clean(output: NotebookNode) -> None:
    """Remove from an output the private value, folders of this machine, and library frames."""
    output.pop("transient", None)
    if output.output_type == "error":
        output.traceback = outputs.short_traceback(output).splitlines()
        output.evalue = outputs.without_folders(plain(output.evalue))
    elif output.output_type == "stream":
        if output.name == "stderr":
            output.text = outputs.without_folders(output.text)
    else:
        output.data.pop(MIME, None)
