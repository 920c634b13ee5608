"""The converters as exporters of nbconvert, for `jupyter nbconvert --to handout_html`."""

from typing import Any

from nbconvert.exporters import Exporter
from nbformat import NotebookNode

from ci.handout import converters


class HandoutHTMLExporter(Exporter):
    """One page that loads nothing and needs no script."""

    export_from_notebook = "Handout (HTML)"
    output_mimetype = "text/html"
    file_extension = ".html"
    converter: Any = converters.HTML

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The notebook in this format. Raises CourseError, with the cell at fault, for content
        that can't be set."""
        nb, resources = super().from_notebook_node(nb, resources, **options)
        return self.converter.convert(nb, resources["metadata"]["name"]), resources


class HandoutPDFExporter(HandoutHTMLExporter):
    """A4 pages, set by Typst."""

    export_from_notebook = "Handout (PDF)"
    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    converter = converters.PDF
