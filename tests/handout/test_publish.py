"""Publishing: what each edition contains, what is carried over, and what a failure leaves."""

import copy
import json
import re
import subprocess
import zipfile
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_output

from ci.errors import CourseError, UsageError
from ci.handout import html, index, manifest, publish
from ci.handout.editions import INSTRUCTORS, STUDENTS
from ci.handout.pool import HandoutPool
from ci.judge import verdicts
from ci.judge.outcome import Outcome, Result
from ci.lesson import oracle
from ci.plan import planner
from ci.plan.gpus import Request
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, Read
from tests.judge.test_agreement import nearly_equal

LESSON = '# %% [markdown] lang="en"\n# Words.\n# %% [markdown] lang="zh"\n# 文字。\n'


def outcome(
    read: Read, name: str, status: str = "verified", date: str = "2026-01-01 12:00 UTC"
) -> Outcome:
    """The outcome of an executed lesson."""
    lesson = read(LESSON, name=name)
    run = planner.Run(lesson, lesson.defaults)
    return Outcome(run, status, date=date, notebook=lesson.notebook)


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


SECRETS = ["onehalf", "hiddenway", "271.828", "314.159", "somehow derived", "off by much"]


@pytest.fixture
def solved(read: Read) -> Outcome:
    """An executed lesson with an exercise; SECRETS has the text of its solution."""
    lesson = read(GRADIENT + EXERCISE, expected=ORACLE + HALVES)
    oracles, run = oracle.load(lesson), planner.Run(lesson, lesson.defaults)
    executed = copy.deepcopy(lesson.notebook)
    for cell in executed.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.execution_count = 5
            shown = {"text/plain": "271.828"}
            cell.outputs = [new_output("execute_result", shown, execution_count=5)]
    gradient, halves = lesson.checks
    return Outcome(
        run,
        "verified",
        results=(
            Result(gradient, "verified", shown="[0. 4.]", expected="[0. 4.]", margin=0.0),
            Result(
                halves,
                "verified",
                shown="271.828",
                expected="314.159",
                derivation="somehow derived",
            ),
        ),
        date="2026-01-01 12:00 UTC",
        notebook=executed,
        answers=verdicts.exercise_answers(lesson, oracles, lesson.defaults),
    )


def text_of(path: Path) -> str:
    """The text of a published file."""
    if path.suffix == ".pdf":
        command = ["pdftotext", "-layout", str(path), "-"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = path.read_bytes().decode()
    return text + unescape(re.sub("<[^>]*>", "", text)) if path.suffix == ".html" else text


def unpacked(archive: Path, folder: Path) -> list[Path]:
    """The files of an archive."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return [path for path in folder.rglob("*") if path.is_file()]


def test_students_get_no_solution_in_any_file(
    solved: Outcome, tmp_path: Path, poppler: None, pool: HandoutPool
) -> None:
    """Neither its code, nor its value, nor the derivation; the blank takes its place."""
    publish.publish([solved], ["01_small"], tmp_path, pool)
    packed = unpacked(tmp_path / "handouts/handouts.zip", tmp_path / "unpacked")
    loose = [p for p in (tmp_path / "handouts").rglob("*") if p.suffix != ".zip" and p.is_file()]
    assert len(packed) == 10
    assert len(loose) == 11
    for path in [*packed, *loose]:
        text = text_of(path)
        assert [secret for secret in SECRETS if secret in text] == [], path
        assert path.stem.startswith("index") or "halves = ..." in text, path


def test_instructors_get_the_solution_in_each_file(
    solved: Outcome, tmp_path: Path, poppler: None, pool: HandoutPool
) -> None:
    """With its value; each page is marked as the instructors' edition."""
    publish.publish([solved], ["01_small"], tmp_path, pool)
    packed = unpacked(tmp_path / "instructors/instructors.zip", tmp_path / "unpacked")
    handouts = [path for path in packed if not path.name.startswith("index")]
    assert len(handouts) == 8
    assert all("onehalf" in text_of(path) for path in handouts)
    assert all(path.relative_to(tmp_path / "unpacked").parts[0] == "instructors" for path in packed)
    for path in packed:
        marks = {"en": "instructors’ edition", "zh": "教师版"}
        language = "zh" if "zh" in (path.parent.name, path.stem.partition(".")[2]) else "en"
        assert marks[language] in text_of(path).lower(), path


def test_students_get_no_picture_of_a_solution(solved: Outcome) -> None:
    """Not even the small one on the course page."""
    assert solved.notebook
    solution = solved.run.lesson.exercises[0].solution
    [cell] = [cell for cell in solved.notebook.cells if cell.id == solution]
    cell.outputs = [new_output("display_data", {"image/svg+xml": "<svg/>"})]
    assert index.entry(solved, INSTRUCTORS)["picture"].startswith("data:image/svg+xml")
    assert index.entry(solved, STUDENTS)["picture"] == ""


def test_each_page_of_the_instructors_pdf_is_marked(
    solved: Outcome, tmp_path: Path, poppler: None, pool: HandoutPool
) -> None:
    """A single copied page can be recognised."""
    publish.publish([solved], ["01_small"], tmp_path, pool)
    for language, mark in (("en", "instructors’ edition"), ("zh", "教师版")):
        pages = text_of(tmp_path / f"instructors/{language}/01_small.pdf").split("\f")[:-1]
        assert all(mark in page for page in pages)


def test_a_draft_does_not_show_the_solution_either(
    solved: Outcome, tmp_path: Path, poppler: None, pool: HandoutPool
) -> None:
    """Even if the solution itself is at fault, its value and the fault are hidden."""
    good, bad = solved.results
    bad = replace(bad, status="differs", message="off by much")
    outcome = replace(solved, status="differs", results=(good, bad), reason="1 of 2 checks: halves")
    publish.publish([outcome], ["01_small"], tmp_path, pool)
    drafts = [path for path in (tmp_path / "drafts").rglob("*") if path.is_file()]
    assert len(drafts) == 11
    for path in drafts:
        assert [secret for secret in SECRETS if secret in text_of(path)] == [], path
    assert "✗ halves" in (tmp_path / "drafts/en/01_small.html").read_text()


def test_exercises_are_carried_over_and_linked(
    solved: Outcome, read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """In both editions, when another lesson is run."""
    order = ["01_small", "02_other"]
    publish.publish([solved], order, tmp_path, pool)
    publish.publish([outcome(read, "02_other")], order, tmp_path, pool)
    for edition, name in (("handouts", "exercises"), ("instructors", "solutions")):
        for language, file in (("en", "index.html"), ("zh", "index.zh.html")):
            page = (tmp_path / edition / file).read_text()
            assert (tmp_path / edition / language / f"01_small_{name}.ipynb").exists()
            assert f'href="{language}/01_small_{name}.ipynb"' in page
            handout = (tmp_path / edition / language / "01_small.html").read_text()
            assert f'href="01_small_{name}.ipynb"' in handout
    assert "02_other_exercises" not in (tmp_path / "handouts/index.html").read_text()


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


def test_no_edition_changes_if_one_of_them_fails(
    solved: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: HandoutPool
) -> None:
    """Both pages always show the same runs."""
    publish.publish([solved], ["01_small"], tmp_path, pool)
    before = [files(tmp_path / folder) for folder in ("handouts", "instructors")]

    class FullDisk(zipfile.ZipFile):
        def __init__(self, path: Path, *options: Any) -> None:
            if path.name == "instructors.zip":
                raise OSError("no space left on device")
            super().__init__(path, *options)

    monkeypatch.setattr(zipfile, "ZipFile", FullDisk)
    with pytest.raises(OSError, match="no space left"):
        publish.publish(
            [replace(solved, date="2026-02-02 12:00 UTC")], ["01_small"], tmp_path, pool
        )
    assert [files(tmp_path / folder) for folder in ("handouts", "instructors")] == before


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
