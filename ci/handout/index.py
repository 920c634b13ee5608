"""The pages around the handouts: the course page, the summary of runs, links between lessons."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ci.handout import check_table, handout, html, markdown
from ci.handout.handout import STUDENTS, Edition, Note
from ci.handout.translations import translations
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Result
from ci.lesson.lesson import LANGUAGES, Lesson

Entry = Mapping[str, Any]


def entry(outcome: Outcome, edition: Edition = STUDENTS) -> dict[str, Any]:
    """The entry of a run: what a page of `edition` says about it, as values that JSON has."""
    lesson = outcome.run.lesson
    return {
        "name": lesson.name,
        "titles": dict(lesson.titles),
        "abstracts": {language: _abstract(lesson, language) for language in lesson.titles},
        "margins": _margins(outcome.results),
        "label": outcome.run.label,
        "folder": str(handout.run_folder(outcome)),
        "status": outcome.status,
        "reason": "" if outcome.cell in edition.hidden(lesson) else outcome.reason,
        "checks": check_table.compared(outcome.results),
        "summaries": {language: _summary(outcome, language) for language in LANGUAGES},
        "workbook": edition.workbook_name(outcome),
        "facts": handout.provenance(outcome),
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


def _margins(results: Sequence[Result]) -> list[float]:
    """The shares of their tolerances that green checks used; exact checks have no tolerance."""
    near = [r for r in results if r.green and r.tolerance not in ("", "exact")]
    return sorted(r.margin for r in near if r.margin is not None)


def course(
    entries: Sequence[Entry], notes: Sequence[Note] = (), edition: Edition = STUDENTS
) -> str:
    """The course page, with an entry for each lesson."""
    return _render(entries, notes, edition=edition, sweep=False, handouts=True, agreed=())


def summary(
    entries: Sequence[Entry],
    notes: Sequence[Note] = (),
    *,
    handouts: bool = False,
    agreed: Sequence[Matrix] = (),
) -> str:
    """The summary of the runs of a sweep, or of drafts, and of how closely the runs agree.

    With `handouts` it links to the handouts in the folder of each run.
    """
    return _render(entries, notes, edition=STUDENTS, sweep=True, handouts=handouts, agreed=agreed)


def _render(entries: Sequence[Entry], notes: Sequence[Note], **kind: Any) -> str:
    abstracts = [text for entry in entries for text in entry.get("abstracts", {}).values()]
    return (
        _templates()
        .get_template("index.html.j2")
        .render(
            entries=entries,
            notes=notes,
            labels={language: translations(language) for language in LANGUAGES},
            prose={text: Markup(p) for text, p in markdown.render(abstracts, "html").items()},
            dots={
                e["name"]: list(map(_position, e["margins"])) for e in entries if e.get("margins")
            },
            **kind,
        )
    )


def _position(margin: float) -> float:
    """The place of a margin in the plot: from 0 for a millionth or less to 1 for the tolerance."""
    return 1 + math.log10(min(max(margin, 1e-6), 1)) / 6


def connect(entries: Sequence[Entry], folder: Path) -> None:
    """Link the pages of each lesson below `folder` to the lessons before and after it.

    Earlier links are replaced, because lessons are added and removed.
    """
    template = _templates().get_template("html/neighbours.html.j2")
    for language in LANGUAGES:
        labels, shown = translations(language), [e for e in entries if language in e["titles"]]
        for before, entry, after in zip([None, *shown], shown, [*shown[1:], None], strict=False):
            path = folder / language / f"{entry['name']}.html"
            links = template.render(before=before, after=after, language=language, labels=labels)
            path.write_text(html.connect(path.read_text("utf-8"), links), "utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(html.TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
