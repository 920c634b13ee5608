"""Handouts as files: notebooks to HTML and PDF, and `write`, which writes those of a run.

The converters take notebooks that `ci.handout.handout.prepare` made, and any others as well. What a
notebook contains is data in both formats: escaped text in HTML, a string literal in Typst.
"""

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import jinja2
import nh3
from markupsafe import Markup
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from ci.errors import CourseError
from ci.handout import check_table, html, markdown, notebook, pdf
from ci.handout.dialect import ATTACHMENT, CAPTIONS
from ci.handout.editions import FORMATS
from ci.handout.handout import Handout, prepare
from ci.handout.markdown import plain, visible
from ci.handout.refusals import REFUSED, first_refused, reason
from ci.handout.translations import translations

# Of an output, the first of these formats that it has is shown. Widgets and scripts never are.
MARKDOWN = ["text/markdown", "text/latex"]
HTML_FORMATS = [*html.PICTURES, "text/html", *MARKDOWN, "text/plain"]
PDF_FORMATS = [*html.PICTURES, *MARKDOWN, "text/plain", "text/html"]


def write(
    handout: Handout,
    folder: Path,
    languages: Sequence[str] | None = None,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write `{en,zh}/<lesson>.{html,pdf,ipynb}` below `folder`, and the notebook of the exercises
    if there are any; of these, those in `formats`. Returns the paths. A lesson in one
    language has only files in this language.

    Raises CourseError, with its place, for content that can't be set.
    """
    paths = []
    for language in languages or handout.lesson.languages:
        prepared, name = prepare(handout, language), handout.lesson.name
        contents: dict[str, bytes] = {}
        if "html" in formats:
            contents[f"{name}.html"] = HTML.convert(prepared).encode()
        if "pdf" in formats:
            contents[f"{name}.pdf"] = PDF.convert(prepared)
        if "ipynb" in formats:
            made = {f"{name}.ipynb": notebook.lesson_notebook(prepared)}
            if handout.workbook:
                made[handout.workbook] = notebook.workbook(handout, language)
            contents |= {file: notebook.text_of(each).encode() for file, each in made.items()}
        for file, content in contents.items():
            path = folder / language / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
    return paths


class _Converter:
    """What both formats have in common."""

    target: markdown.Target
    formats: Sequence[str]
    template: str

    def prepare(self) -> None:
        """Compile the template before the first notebook arrives."""
        _ = self._template

    def convert(self, nb: NotebookNode, name: str = "Notebook") -> Any:
        """The notebook in this format; `name` is the title if it is not a lesson's.

        Raises CourseError, with the cell at fault, for content that can't be set.
        """
        try:
            return self._convert(nb, name)
        except REFUSED as error:
            about = nb.metadata.get("handout", {})
            cell = first_refused(nb.cells, lambda cells: self._convert(new_notebook(cells=cells)))
            place = about.get("places", {}).get(cell.id if cell else "", "")
            place = place or about.get("name", "the notebook")
            raise CourseError(f"{place}: {reason(error)}") from None

    def _convert(self, nb: NotebookNode, name: str = "") -> Any:
        return self._template.render(nb=nb, resources=self._resources(nb, name)).lstrip()

    @functools.cached_property
    def _template(self) -> jinja2.Template:
        return self._environment().get_template(self.template)

    def _environment(self) -> jinja2.Environment:
        folder = html.TEMPLATES / self.target
        return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=False)

    def _resources(self, nb: NotebookNode, name: str) -> dict[str, Any]:
        """What the template knows beside the notebook."""
        texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        texts += [content for kind, content in _contents(nb, self.formats) if kind in MARKDOWN]
        about = nb.metadata.get("handout", {})
        texts += [markdown.escape_words(row["derivation"]) for row in about.get("rows", [])]
        prose = markdown.render(texts, self.target)
        return {
            "prose": {text: Markup(self._finished(markup, nb)) for text, markup in prose.items()},
            "captions": _captions(nb, self.formats),
            "drawings": _drawings(nb),
            "handout": about,
            "labels": translations(about.get("language", "en")),
            "content": functools.partial(_content, formats=self.formats),
            "metadata": {"name": name},
            "escape_words": markdown.escape_words,
        }

    def _finished(self, markup: str, nb: NotebookNode) -> str:
        """The prose of a cell, complete."""
        return markup


class _HTMLConverter(_Converter):
    """One page that loads nothing and needs no script."""

    target = "html"
    formats = HTML_FORMATS
    template = "index.html.j2"

    def _environment(self) -> jinja2.Environment:
        environment = super()._environment()
        environment.autoescape = True
        environment.filters |= {"code": html.code, "plain": plain, "clean": html.clean}
        environment.filters |= {"visible": visible, "failure": html.failure}
        environment.filters["data"] = html.data_url
        environment.globals |= {"html": html, "check_table": check_table}
        return environment

    def _finished(self, markup: str, nb: NotebookNode) -> str:
        markup = markup.replace("<code", '<code translate="no"')
        for name, (kind, content) in _attachments(nb).items():
            place = f'src="{ATTACHMENT}{name}"'
            markup = markup.replace(place, f'src="data:{kind};base64,{content}"')
        return markup


class _PDFConverter(_Converter):
    """A4 pages, set by Typst."""

    target = "typst"
    formats = PDF_FORMATS
    template = "index.typ.j2"

    def _environment(self) -> jinja2.Environment:
        environment = super()._environment()
        environment.finalize = pdf.literal
        environment.filters |= {"fold": pdf.fold, "beside": pdf.beside, "file": _file_name}
        environment.filters["strip_tags"] = _strip_tags
        environment.globals["part"] = Markup(pdf.PART)
        return environment

    def _resources(self, nb: NotebookNode, name: str) -> dict[str, Any]:
        captions = [nb.cells[index].source for index in _captions(nb, self.formats).values()]
        return {**super()._resources(nb, name), "spoken": markdown.spoken(captions)}

    def _convert(self, nb: NotebookNode, name: str = "") -> bytes:
        source = super()._convert(nb, name)
        pictures = {
            _file_name(content, kind): html.picture_bytes(kind, content)
            for kind, content in _contents(nb, self.formats)
            if kind in html.PICTURES
        }
        pictures |= {n: base64.b64decode(content) for n, (_, content) in _attachments(nb).items()}
        date = nb.metadata.get("handout", {}).get("provenance", {}).get("date", "")
        return pdf.handout(source, pictures, date)


HTML, PDF = _HTMLConverter(), _PDFConverter()


def _content(output: NotebookNode, formats: Sequence[str]) -> tuple[str, str]:
    """The format in which an output is shown, and its content; empty for what can't be shown."""
    if output.output_type == "stream":
        return f"text/{output.name}", output.text.rstrip("\n")
    if output.output_type == "error":
        return "text/error", "\n".join(output.traceback)
    return next(
        ((kind, output.data[kind]) for kind in formats if kind in output.data), ("text/plain", "")
    )


def _contents(nb: NotebookNode, formats: Sequence[str]) -> Iterator[tuple[str, str]]:
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            yield _content(output, formats)


def _attachments(nb: NotebookNode) -> dict[str, tuple[str, str]]:
    """The pictures of prose by their names: the format of each, and its content in base64."""
    return {
        name: (kind, content)
        for cell in nb.cells
        for name, formats in cell.get("attachments", {}).items()
        for kind, content in formats.items()
    }


def _captions(nb: NotebookNode, formats: Sequence[str]) -> dict[int, int]:
    """The index of each cell that shows a picture, with that of the caption that follows it."""
    drawn = {
        index
        for index, cell in enumerate(nb.cells)
        if any(_content(output, formats)[0] in html.PICTURES for output in cell.get("outputs", []))
    }
    return {
        index - 1: index
        for index, cell in enumerate(nb.cells)
        if index - 1 in drawn and cell.source.startswith(CAPTIONS)
    }


def _drawings(nb: NotebookNode) -> dict[int, list[NotebookNode]]:
    """The index of each cell of a figure, with the cells whose code draws it: neighbours that show
    nothing, and itself. A neighbour that belongs to a later cell has none."""
    drawings, parts = dict[int, list[NotebookNode]](), list[NotebookNode]()
    for index, cell in enumerate(nb.cells):
        after = nb.cells[index + 1 : index + 2]
        if _is_figure(cell):
            parts.append(cell)
            waits = not cell.outputs and any(map(_is_figure, after))
            drawings[index], parts = ([], parts) if waits else (parts, [])
    return drawings


def _is_figure(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "figure" in cell.metadata.get("tags", [])


def _file_name(content: str, kind: str) -> str:
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.{html.PICTURES[kind]}"


def _strip_tags(content: str) -> str:
    return unescape(nh3.clean(content, tags=set()))
