"""The pages around the handouts: the course page, the summary of a sweep, links to neighbours."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ci.handout import html, markdown
from ci.handout.editions import STUDENTS, Edition
from ci.handout.html import TEMPLATES
from ci.handout.translations import translations
from ci.judge.agreement import Matrix
from ci.lesson.lesson import LANGUAGES, Lesson


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
        said = template.render(
            before=before, after=after, language=language, labels=translations(language)
        )
        path.write_text(html.connect(path.read_text("utf-8"), said), "utf-8")


def course(
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
    say = {language: translations(language) for language in LANGUAGES}
    template = _templates().get_template("index.html.j2")
    abstracts = [text for entry in entries for text in entry.get("abstracts", {}).values()]
    prose = {text: Markup(said) for text, said in markdown.render(abstracts, "html").items()}
    dots = {e["name"]: list(map(_across, e["margins"])) for e in entries if e.get("margins")}
    return template.render(entries=entries, notes=notes, labels=say, prose=prose, dots=dots, **kind)


def _across(margin: float) -> float:
    """Where a margin stands in the plot, from 0 at a millionth or less to 1 at the tolerance."""
    return 1 + math.log10(min(max(margin, 1e-6), 1)) / 6


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
