"""Publishing: what a plan publishes, what is carried over, and what a failure leaves."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ci.errors import CourseError, UsageError
from ci.handout import html, manifest, publish
from ci.handout.pool import HandoutPool
from ci.judge.outcome import Outcome, Result
from ci.plan import planner
from ci.plan.gpus import Request
from tests.conftest import GRADIENT, ORACLE, Read, files
from tests.judge.test_agreement import nearly_equal

LESSON = '# %% [markdown] lang="en"\n# Words.\n# %% [markdown] lang="zh"\n# 文字。\n'


def outcome(
    read: Read, name: str, status: str = "verified", date: str = "2026-01-01 12:00 UTC"
) -> Outcome:
    """The outcome of an executed lesson."""
    lesson = read(LESSON, name=name)
    run = planner.Run(lesson, lesson.defaults)
    return Outcome(run, status, date=date, notebook=lesson.notebook)


def test_the_html_of_a_saved_lesson_can_go_first(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """The other files stay as they were, and count as outdated until they are made."""
    order = ["01_small", "02_other"]
    publish.publish([outcome(read, name) for name in order], order, tmp_path, pool)
    before = files(tmp_path / "handouts")
    new = replace(outcome(read, "01_small", date="2026-01-02 12:00 UTC"), key="new")
    publish.publish([new], order, tmp_path, pool, html_only=True)
    after = files(tmp_path / "handouts")
    assert before.keys() == after.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {Path(name).suffix for name in changed} <= {".html", ".json"}
    assert {"en/01_small.html", "zh/01_small.html", "index.html"} <= changed
    assert not manifest.settled(tmp_path, [])("01_small", "new")
    publish.publish([new], order, tmp_path, pool)
    assert manifest.settled(tmp_path, [])("01_small", "new")
    assert files(tmp_path / "handouts")["en/01_small.pdf"] != before["en/01_small.pdf"]


def test_a_green_plan_publishes_six_files_a_lesson(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """HTML, PDF and notebook in each language, an index, an archive."""
    publish.publish([outcome(read, "01_small")], ["01_small"], tmp_path, pool)
    assert set(files(tmp_path / "handouts")) == {
        *(f"{lang}/01_small.{kind}" for lang in ("en", "zh") for kind in ("html", "ipynb", "pdf")),
        *("index.html", "index.zh.html", "index.json", "handouts.zip"),
    }


def test_the_course_page_shows_promises_and_margins(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """The last paragraph of the first cell, in each language, and a dot for each margin."""
    text = LESSON.replace("# Words.", "# # Title\n#\n# A need.\n#\n# You can **add**.")
    lesson = read(text + GRADIENT, expected=ORACLE, header="")
    near = Result(lesson.checks[0], "verified", tolerance="1e-12 rel", margin=0.25)
    run = planner.Run(lesson, lesson.defaults)
    made = Outcome(run, "verified", (near,), notebook=lesson.notebook)
    publish.publish([made], [lesson.name], tmp_path, pool)

    page = (tmp_path / "handouts" / "index.html").read_text("utf-8")

    assert "You can <strong>add</strong>." in page
    assert "A need." not in page
    assert page.count("<circle") == 1
    assert "The other 0 of 1 checks have no tolerance" in page


def test_other_lessons_are_carried_over_with_their_date(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """A run of some lessons leaves the handouts of the others as they were, but that their pages
    lead to those that are new."""
    order = ["01_small", "02_other"]
    publish.publish([outcome(read, "01_small", date="2026-01-01 12:00 UTC")], order, tmp_path, pool)
    before = (tmp_path / "handouts/en/01_small.html").read_text("utf-8")
    pdf = (tmp_path / "handouts/en/01_small.pdf").read_bytes()
    publish.publish([outcome(read, "02_other", date="2026-02-02 12:00 UTC")], order, tmp_path, pool)
    entries = json.loads((tmp_path / "handouts/index.json").read_text())
    after = (tmp_path / "handouts/en/01_small.html").read_text("utf-8")
    assert 'href="02_other.html" rel="next"' in after
    assert 'rel="next"' not in before
    assert html.connect(after, {}) == html.connect(before, {})
    assert (tmp_path / "handouts/en/01_small.pdf").read_bytes() == pdf
    assert [entry["facts"]["date"] for entry in entries] == [
        "2026-01-01 12:00 UTC",
        "2026-02-02 12:00 UTC",
    ]


def test_a_lesson_that_is_gone_is_not_carried_over(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """The page has the lessons of the course and no others."""
    publish.publish([outcome(read, "01_small")], ["01_small"], tmp_path, pool)
    publish.publish([outcome(read, "02_other")], ["02_other"], tmp_path, pool)
    assert not (tmp_path / "handouts/en/01_small.html").exists()


def test_a_plan_that_is_not_green_publishes_nothing(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """The page stays byte for byte; the drafts say that they are not verified."""
    publish.publish([outcome(read, "01_small")], ["01_small"], tmp_path, pool)
    before = files(tmp_path / "handouts")
    publish.publish([outcome(read, "01_small", "differs")], ["01_small"], tmp_path, pool)
    assert files(tmp_path / "handouts") == before
    assert "Not verified" in (tmp_path / "drafts/en/01_small.html").read_text()
    assert "未经验证" in (tmp_path / "drafts/zh/01_small.html").read_text()


def test_the_archive_is_the_same_for_the_same_handouts(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """The same executions make the same bytes."""
    first, second = tmp_path / "a", tmp_path / "b"
    for build in (first, second):
        publish.publish([outcome(read, "01_small")], ["01_small"], build, pool)
    archives = [(build / "handouts/handouts.zip").read_bytes() for build in (first, second)]
    assert archives[0] == archives[1]
    names = zipfile.ZipFile(first / "handouts/handouts.zip").namelist()
    assert "handouts/en/01_small.pdf" in names


def test_a_sweep_leaves_the_course_page_alone(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """Runs with other parameters get one summary page, and with handouts=all also handouts."""
    lesson = read(LESSON)
    outcomes = [
        Outcome(run, "verified", notebook=lesson.notebook)
        for run in planner.runs([lesson], ["size=2,3"], [])
    ]
    publish.publish(outcomes, ["01_small"], tmp_path, pool)
    assert not (tmp_path / "handouts").exists()
    assert set(files(tmp_path / "sweep")) == {"index.html", "index.zh.html", "index.json"}
    assert "size=3" in (tmp_path / "sweep/index.html").read_text()
    publish.publish(outcomes, ["01_small"], tmp_path, pool, handouts="all")
    assert len(list((tmp_path / "sweep").rglob("*.pdf"))) == 4


def test_a_sweeps_page_says_how_its_runs_agree(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """In both languages, with a heading for each row and column; a single run has no such table."""
    outcomes, agreed = nearly_equal(read, runs=3)
    publish.publish(outcomes, ["01_small"], tmp_path, pool, agreed=agreed)
    html = (tmp_path / "sweep/index.html").read_text()
    cells = re.findall(r"<(th|td)[^>]*>([^<]*)</", html)
    heads, values = (
        ["ranks", "1", "2", "ranks=2", "ranks=3"],
        ["2.3e-14", "", "4.5e-14", "2.3e-14"],
    )
    assert [text for kind, text in cells if kind == "th"] == heads
    assert [text for kind, text in cells if kind == "td"] == values
    assert html.count('scope="col"') == 3
    assert html.count('scope="row"') == 2
    assert "The largest is 4.5e-14, in total: ranks=1 and ranks=3." in html
    chinese = (tmp_path / "sweep/index.zh.html").read_text()
    assert "最大差异为 4.5e-14，见 total：ranks=1 与 ranks=3。" in chinese
    publish.publish(outcomes[:1], ["01_small"], tmp_path, pool)
    assert "<table" not in (tmp_path / "sweep/index.html").read_text()


def test_a_damaged_page_is_named(read: Read, tmp_path: Path, pool: HandoutPool) -> None:
    """A damaged index.json is an error and does not lose a lesson."""
    (tmp_path / "handouts").mkdir()
    (tmp_path / "handouts/index.json").write_text("{")
    with pytest.raises(CourseError, match=r"handouts/index\.json is damaged"):
        publish.publish([outcome(read, "01_small")], ["01_small", "02_small"], tmp_path, pool)


def test_a_request_for_all_gpus_without_any_adds_a_note() -> None:
    """With --gpus all and no GPU, the run uses the CPU and says so on each handout."""
    assert publish.notes(Request("all"), [], "default") == [publish.ON_CPU]
    assert publish.notes(Request("auto"), [], "default") == []


def test_an_unknown_word_for_handouts_is_refused() -> None:
    """Only default and all are known."""
    with pytest.raises(UsageError, match="--handouts some"):
        publish.notes(Request("auto"), [], "some")
