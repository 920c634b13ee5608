"""Links to the web that the instructors choose: Colab, and where to report an error."""

import io
from dataclasses import replace

import pypdf
import pytest

from ci.errors import UsageError
from ci.handout import index
from ci.handout.editions import INSTRUCTORS, STUDENTS
from ci.handout.exporters import HandoutHTMLExporter, HandoutPDFExporter
from ci.handout.handout import Handout, prepare
from ci.plan import keys
from tests.handout.conftest import Make

COLAB = "https://colab.example/{language}/{name}.ipynb"
REPORT = "https://report.example/?title={name}"


@pytest.fixture
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_COLAB", COLAB)
    monkeypatch.setenv("COURSE_REPORT", REPORT)


def page(made: Handout, language: str = "en") -> str:
    """The HTML handout."""
    return str(HandoutHTMLExporter().from_notebook_node(prepare(made, language))[0])


@pytest.mark.usefixtures("_addresses")
def test_a_page_links_to_colab_and_to_reports(make: Make) -> None:
    """With the names of its language and its lesson."""
    shown = page(make(), "zh")
    assert '<a href="https://colab.example/zh/03_gradients.ipynb">在 Colab 中打开</a>' in shown
    assert '<a href="https://report.example/?title=03_gradients">报告错误</a>' in shown


@pytest.mark.usefixtures("_addresses")
def test_the_pdf_links_to_reports(make: Make) -> None:
    """The address can be read on paper."""
    made, _ = HandoutPDFExporter().from_notebook_node(prepare(make(), "en"))
    words = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(made)).pages)
    assert "Report an error" in words
    assert "https://report.example/?title=03_gradients" in words


@pytest.mark.usefixtures("_addresses")
def test_the_course_page_links_to_colab(make: Make) -> None:
    """Beside the other formats."""
    entry = index.entry(make().outcome, STUDENTS)
    shown = index.pages([entry])["index.html"]
    assert '<a href="https://colab.example/en/03_gradients.ipynb">Open in Colab</a>' in shown


@pytest.mark.usefixtures("_addresses")
def test_solutions_are_never_linked(make: Make) -> None:
    """The instructors' edition has no link to the web."""
    assert "example" not in page(make(edition=INSTRUCTORS))
    assert not any(index.entry(make().outcome, INSTRUCTORS)["links"].values())


@pytest.mark.usefixtures("_addresses")
def test_a_run_with_other_parameters_is_not_linked(make: Make) -> None:
    """Only the handouts of the default parameters are on the web."""
    made = make()
    run = replace(made.outcome.run, chosen={"size": 9})
    assert "example" not in page(replace(made, outcome=replace(made.outcome, run=run)))


def test_nothing_is_linked_without_an_address(make: Make) -> None:
    """No empty link, and no word about Colab."""
    assert "Colab" not in page(make())
    assert "Report an error" not in page(make())


def test_a_new_address_renews_the_handouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a part of the handouts' key, and not of the execution's."""
    before = keys.environment({})
    monkeypatch.setenv("COURSE_REPORT", REPORT)
    after = keys.environment({})
    assert before.execution == after.execution
    assert before.handout != after.handout


def test_an_address_is_one_of_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another scheme could run a script."""
    monkeypatch.setenv("COURSE_COLAB", "javascript:alert(1)")
    with pytest.raises(UsageError, match="COURSE_COLAB=javascript:.*: must begin with https://"):
        keys.environment({})
