"""The two nbconvert exporters of the handouts, HTML and PDF.

They set a notebook that `ci.handout.prepare` made, and any other one as well. What comes from a
notebook is data in both: escaped text in HTML, a string literal in Typst, whatever it looks like.
"""

import base64
import functools
import hashlib
from collections.abc import Iterator
from html import unescape
from typing import Any

import nh3
import typst
from jinja2 import Environment
from markupsafe import Markup
from nbconvert.exporters import TemplateExporter
from nbformat import NotebookNode
from traitlets import default

from ci.errors import CourseError
from ci.handout import check_table, html, markdown, math_font, pdf
from ci.handout.html import TEMPLATES
from ci.handout.markdown import plain
from ci.handout.translations import translations

# What of an output is set, the first of these that it has. Widgets and scripts are not among them.
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
MARKDOWN = ["text/markdown", "text/latex"]
HTML_KINDS = [*PICTURES, "text/html", *MARKDOWN, "text/plain"]
PDF_KINDS = [*PICTURES, *MARKDOWN, "text/plain", "text/html"]

CAPTIONS = ("**Figure", "**图")  # begin a caption, which follows its figure


def _content(output: NotebookNode, kinds: list[str]) -> tuple[str, str]:
    """The kind of what is to be set of an output, and that; an empty text for what can't be."""
    if output.output_type == "stream":
        return f"text/{output.name}", output.text.rstrip("\n")
    if output.output_type == "error":
        return "text/error", "\n".join(output.traceback)
    return next(
        ((kind, output.data[kind]) for kind in kinds if kind in output.data), ("text/plain", "")
    )


def _contents(notebook: NotebookNode, kinds: list[str]) -> Iterator[tuple[str, str]]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield _content(output, kinds)


def _captions(notebook: NotebookNode, kinds: list[str]) -> dict[int, int]:
    """Of each cell that shows a picture, and of the caption that follows it, the index."""
    drawn = {
        index
        for index, cell in enumerate(notebook.cells)
        if any(_content(output, kinds)[0] in PICTURES for output in cell.get("outputs", []))
    }
    return {
        index - 1: index
        for index, cell in enumerate(notebook.cells)
        if index - 1 in drawn and cell.source.startswith(CAPTIONS)
    }


def _bytes(kind: str, content: str) -> bytes:
    return content.encode() if kind == "image/svg+xml" else base64.b64decode(content)


def _file(content: str, kind: str) -> str:
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.{PICTURES[kind]}"


class _Handouts(TemplateExporter):
    """What the two exporters share: where their templates are, and what these can say."""

    target: markdown.Target
    kinds: list[str]

    @default("extra_template_basedirs")
    def _extra_template_basedirs_default(self) -> list[str]:
        return [str(TEMPLATES)]

    @default("template_name")
    def _template_name_default(self) -> str:
        return self.target

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The notebook in this format. Raises CourseError for what can't be set, by name."""
        texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        texts += [content for kind, content in _contents(nb, self.kinds) if kind in MARKDOWN]
        handout = nb.metadata.get("handout", {})
        resources = {
            **(resources or {}),
            "prose": {
                text: Markup(markup) for text, markup in markdown.render(texts, self.target).items()
            },
            "captions": _captions(nb, self.kinds),
            "handout": handout,
            "labels": translations(handout.get("language", "en")),
            "content": functools.partial(_content, kinds=self.kinds),
        }
        return super().from_notebook_node(nb, resources, **options)


class HandoutHTMLExporter(_Handouts):
    """One page that loads nothing and needs no script."""

    export_from_notebook = "Handout (HTML)"
    target = "html"
    kinds = HTML_KINDS
    output_mimetype = "text/html"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".html"

    @default("template_extension")
    def _template_extension_default(self) -> str:
        return ".html.j2"

    def _create_environment(self) -> Environment:
        environment: Environment = super()._create_environment()
        environment.autoescape = True
        environment.filters |= {
            "code": html.code,
            "plain": plain,
            "clean": html.clean,
            "data": _data,
        }
        environment.globals |= {"html": html, "math_font": math_font, "check_table": check_table}
        return environment


def _data(content: str, kind: str) -> str:
    """A picture as an address of its own; a script in an SVG never runs there."""
    return f"data:{kind};base64,{base64.b64encode(_bytes(kind, content)).decode()}"


class HandoutPDFExporter(_Handouts):
    """A4 pages, set by Typst."""

    export_from_notebook = "Handout (PDF)"
    target = "typst"
    kinds = PDF_KINDS
    output_mimetype = "application/pdf"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".pdf"

    @default("template_extension")
    def _template_extension_default(self) -> str:
        return ".typ.j2"

    def _create_environment(self) -> Environment:
        environment: Environment = super()._create_environment()
        environment.finalize = pdf.literal
        environment.filters |= {"fold": pdf.fold, "beside": pdf.beside, "strip_tags": _strip_tags}
        environment.filters["file"] = _file
        return environment

    def from_notebook_node(  # type: ignore[override]  # a file of bytes, as nbconvert's own PDF
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[bytes, dict[str, Any]]:
        """The PDF file. Raises CourseError, with the cell, for a character that no font has."""
        captions = _captions(nb, self.kinds)
        spoken = markdown.spoken([nb.cells[index].source for index in captions.values()])
        resources = {**(resources or {}), "spoken": spoken}
        source, resources = super().from_notebook_node(nb, resources, **options)
        pictures = {
            _file(content, kind): _bytes(kind, content)
            for kind, content in _contents(nb, self.kinds)
            if kind in PICTURES
        }
        about = resources["handout"]
        try:
            made = pdf.handout(source, pictures, about.get("provenance", {}).get("date", ""))
        except typst.TypstError as error:
            why, cell = pdf.fault(error, nb.cells)
            place = about.get("places", {}).get(cell) or about.get("name", "the notebook")
            raise CourseError(f"{place}: {why}") from None
        return made, resources


def _strip_tags(content: str) -> str:
    """The words of a fragment of HTML."""
    return unescape(nh3.clean(content, tags=set()))
