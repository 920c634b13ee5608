"""Reports in JUnit format."""

from pathlib import Path

from junitparser import JUnitXml

from ci.judge.outcome import Outcome, Result, skipped_outcome
from ci.plan import planner
from ci.report import junit
from tests.conftest import GRADIENT, Read
from tests.report.test_terminal import RAISES, outcome


def test_junit_has_a_case_for_each_declared_check(read: Read, tmp_path: Path) -> None:
    """The case `run`, and a case with file and line for each check."""
    lesson = read(GRADIENT + RAISES)
    junit.write([outcome(lesson)], tmp_path)
    cases = list(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml")))))
    assert [case.name for case in cases] == ["run", "gradient", "boom"]
    assert cases[1]._elem.get("file") == "lessons/01_small.py"
    assert cases[1]._elem.get("line") == str(lesson.checks[0].line)
    assert "largest difference 6" in cases[1].result[0].message
    assert cases[2].result == []


def test_junit_is_valid_xml_for_any_message(read: Read, tmp_path: Path) -> None:
    """Colours and control characters are removed."""
    lesson = read(GRADIENT)
    run = planner.Run(lesson, lesson.defaults)
    junit.write([Outcome(run, "failed", reason="\x1b[31mred\x1b[0m \x00")], tmp_path)
    case = next(iter(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))))
    assert "red" in case.result[0].message


def test_a_fault_of_the_run_itself_fails_in_junit(read: Read, tmp_path: Path) -> None:
    """The case `run` fails, even if all checks are green."""
    lesson = read(GRADIENT)
    run = planner.Run(lesson, lesson.defaults)
    green = Result(lesson.checks[0], "verified")
    junit.write([Outcome(run, "differs", (green,), "leased cuda:0, unseen")], tmp_path)
    case = next(iter(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))))
    assert "leased cuda:0" in case.result[0].message


def test_a_run_that_lacks_gpus_is_skipped_in_junit(read: Read, tmp_path: Path) -> None:
    """It has neither passed nor failed."""
    run = planner.Run(read(GRADIENT), {}, gpus_needed=2)
    junit.write([skipped_outcome(run)], tmp_path)
    suite = next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))
    assert [case.result[0].message for case in suite] == ["needs 2 GPUs", "needs 2 GPUs"]


def test_an_unchanged_run_takes_no_time_in_junit(read: Read, tmp_path: Path) -> None:
    """It passes, and its output has the date of the execution."""
    lesson = read(GRADIENT)
    run = planner.Run(lesson, lesson.defaults)
    green = Result(lesson.checks[0], "verified")
    unchanged = Outcome(run, "unchanged", (green,), seconds=2.0, date="2026-01-01 12:00 UTC")
    junit.write([unchanged], tmp_path)
    case = next(iter(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))))
    assert (case.result, case.time) == ([], 0)
    assert case.system_out == "unchanged since 2026-01-01 12:00 UTC"
