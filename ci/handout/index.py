"""The pages around the handouts: the course page, the summary of runs, links between lessons."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ci.handout import check_table, html, markdown
from ci.handout.editions import STUDENTS, Edition, Note, index_name, run_folder
from ci.handout.handout import links, provenance
from ci.handout.translations import translations
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Result
from ci.lesson.languages import LANGUAGES, word_count
from ci.lesson.lesson import Lesson

Entry = Mapping[str, Any]

WORDS_PER_MINUTE, LINES_PER_MINUTE = 180, 20  # of prose, and of code
LARGEST_PICTURE = 200_000  # characters


def entry(outcome: Outcome, edition: Edition = STUDENTS) -> dict[str, Any]:
    """The entry of a run: what a page of `edition` says about it, as values that JSON has."""
    lesson = outcome.run.lesson
    return {
        "name": lesson.name,
        "titles": dict(lesson.titles),
        "abstracts": {language: _abstract(lesson, language) for language in lesson.titles},
        "minutes": {language: _minutes(lesson, language) for language in lesson.titles},
        "prerequisites": list(lesson.prerequisites),
        "picture": _picture(outcome, edition),
        "margins": _margins(outcome.results),
        "label": outcome.run.label,
        "folder": str(run_folder(outcome)),
        "status": outcome.status,
        "reason": "" if outcome.cell in edition.hidden(lesson) else outcome.reason,
        "checks": check_table.compared(outcome.results),
        "summaries": {language: _summary(outcome, language) for language in LANGUAGES},
        "workbook": edition.workbook_name(outcome),
        "links": {name: links(outcome, edition, name) for name in lesson.languages},
        "facts": provenance(outcome),
    }


def _summary(outcome: Outcome, language: str) -> str:
    labels = translations(language)
    return check_table.summary(outcome.results, labels, outcome.not_compared, green=outcome.green)


def _abstract(lesson: Lesson, language: str) -> str:
    """The last paragraph of the lesson's first cell, in Markdown; empty if it is only a title."""
    prose = (cell for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    first = next((c.source for c in prose if c.metadata.get("lang", language) == language), "")
    last: str = first.strip().split("\n\n")[-1]
    return "" if last.startswith("#") else last


def _minutes(lesson: Lesson, language: str) -> int:
    """How long it takes to read a lesson, with its code."""
    cells = lesson.notebook.cells
    prose = [
        c for c in cells if c.cell_type == "markdown" and c.metadata.get("lang") in (None, language)
    ]
    lines: int = sum(cell.source.count("\n") + 1 for cell in cells if cell.cell_type == "code")
    return math.ceil(word_count(prose, language) / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE)


def _picture(outcome: Outcome, edition: Edition) -> str:
    """The first figure of a lesson that `edition` shows, as a URL; empty without a small one."""
    executed = outcome.notebook.cells if outcome.notebook else []
    cells = edition.cells(outcome.run.lesson, executed)
    outputs = (output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    pictures = (
        html.data_url(data[kind], kind)
        for data in outputs
        for kind in html.PICTURES
        if kind in data
    )
    return next((url for url in pictures if len(url) < LARGEST_PICTURE), "")


def _margins(results: Sequence[Result]) -> list[float]:
    """The shares of their tolerances that green checks used; exact checks have no tolerance."""
    near = [r for r in results if r.green and r.tolerance not in ("", "exact")]
    return sorted(r.margin for r in near if r.margin is not None)


def pages(
    entries: Sequence[Entry],
    notes: Sequence[Note] = (),
    *,
    edition: Edition = STUDENTS,
    sweep: bool = False,
    handouts: bool = True,
    agreed: Sequence[Matrix] = (),
) -> dict[str, str]:
    """The course page in each language, by the names of its files. With `sweep`, the summary of
    runs, and of how closely they agree.

    With `handouts` it links to them, in a summary to those in the folder of each run.
    """
    abstracts = [text for entry in entries for text in entry.get("abstracts", {}).values()]
    prose = {text: Markup(p) for text, p in markdown.render(abstracts, "html").items()}
    margins = {e["name"]: list(map(_position, e["margins"])) for e in entries if e.get("margins")}
    languages = [code for code in LANGUAGES if any(code in e["titles"] for e in entries)]
    template = _templates().get_template("index.html.j2")
    made = {
        index_name(language): template.render(
            entries=entries,
            notes=notes,
            language=language,
            other=next((code for code in languages if code != language), ""),
            labels={code: translations(code) for code in LANGUAGES},
            prose=prose,
            dots=margins,
            edition=edition,
            sweep=sweep,
            handouts=handouts,
            agreed=agreed,
        )
        for language in languages or LANGUAGES[:1]
    }
    return {index_name(LANGUAGES[0]): next(iter(made.values())), **made}


def _position(margin: float) -> float:
    """The place of a margin in the plot: from 0 for a millionth or less to 1 for the tolerance."""
    return 1 + math.log10(min(max(margin, 1e-6), 1)) / 6


def connect(entries: Sequence[Entry], folder: Path) -> None:
    """Link the pages of each lesson below `folder` to the other lessons.

    Earlier links are replaced, because lessons are added and removed.
    """
    lessons, ends = map(
        _templates().get_template, ("html/lessons.html.j2", "html/neighbours.html.j2")
    )
    for language in LANGUAGES:
        shown = [entry for entry in entries if language in entry["titles"]]
        for number, entry in enumerate(shown):
            before, after = shown[:number], shown[number + 1 :]
            common = {"language": language, "labels": translations(language)}
            links = {
                "before": lessons.render(entries=before, **common),
                "after": lessons.render(entries=after, **common),
                "neighbours": ends.render(before=before[-1:], after=after[:1], **common),
            }
            path = folder / language / f"{entry['name']}.html"
            path.write_text(html.connect(path.read_text("utf-8"), links), "utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(html.TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= {"html": html, "index_name": index_name}
    return environment
