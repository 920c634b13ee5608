"""The students' and the instructors' edition: who gets the solutions of exercises."""

import copy
import re
import subprocess
import zipfile
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_output

from ci.handout import index, publish
from ci.handout.editions import INSTRUCTORS, STUDENTS
from ci.handout.pool import HandoutPool
from ci.judge import verdicts
from ci.judge.outcome import Outcome, Result
from ci.lesson import oracle
from ci.plan import planner
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, Read, files
from tests.handout.test_publish import outcome

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
