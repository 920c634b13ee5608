"""Characters that turn the direction of text are shown in code (https://nvd.nist.gov/vuln/detail/CVE-2021-42574)."""

from nbformat.v4 import new_output

from ci.handout import html
from ci.handout.exporters import HandoutHTMLExporter
from ci.handout.handout import prepare
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures


def test_code_and_output_show_them(make: Make) -> None:  # noqa: F811
    """In HTML as in the PDF, code reads as it runs."""
    assert "&lt;U+202E&gt;" in html.code('x = "\u202e"')
    assert "U+2066" in html.code("# \u2066")
    printed = new_output("stream", text="a\u202eb")
    page = str(HandoutHTMLExporter().from_notebook_node(prepare(make(printed), "en"))[0])
    assert "a&lt;U+202E&gt;b" in page
