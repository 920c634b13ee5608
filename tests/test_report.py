"""What the outcomes look like to people and to machines."""

import io
import json
from pathlib import Path
from typing import Any

from junitparser import JUnitXml
from rich.console import Console

from ci import check, engine, plan, report
from ci.check import Outcome, Result
from ci.course import Lesson
from tests.conftest import GRADIENT, Read

RAISES = '# %% check="boom" raises="RuntimeError"\nraise RuntimeError\n'


def outcome(lesson: Lesson, status: str = "differs", **facts: Any) -> Outcome:
    """An outcome whose first check differs and whose others are verified."""
    first, *others = lesson.checks
    bad = Result(
        first,
        "differs",
        "largest difference 6 at [3]: shown 18.0, expected 12.0, allowed 2.4e-05",
        shown="[0. 6. 12. 18.]",
        expected="[0. 4. 8. 12.]",
        derivation="y = 2 sum(x_i^2), so dy/dx_i = 4 x_i.",
        tolerance="2e-6 rel",
    )
    results = (bad, *(Result(other, "verified", margin=0.25) for other in others))
    return Outcome(plan.Run(lesson, lesson.defaults), status, results, **facts)


def printed(*outcomes: Outcome) -> str:
    """The final report, as a log shows it."""
    text = io.StringIO()
    runs = [outcome.run for outcome in outcomes]
    report.Screen(runs, Console(file=text, width=100)).finish(outcomes)
    return text.getvalue()


def test_a_mismatch_reads_like_a_good_test_failure(read: Read) -> None:
    """Lesson, line, check, derivation, shown, expected, difference and where, tolerance."""
    lesson = read(GRADIENT)
    text = printed(outcome(lesson))
    place = lesson.where(lesson.checks[0].cell)
    assert f"01_small differs: {place}: check 'gradient' largest difference 6 at [3]" in text
    for fact in ("dy/dx_i = 4 x_i.", "[0. 6. 12. 18.]", "[0. 4. 8. 12.]", "2e-6 rel"):
        assert fact in text


def test_brackets_in_a_value_are_not_markup(read: Read) -> None:
    """rich would read [red] as a colour."""
    bad = outcome(read(GRADIENT))
    shown = Result(bad.results[0].check, "differs", shown="[red]1[/red]")
    assert "[red]1[/red]" in printed(Outcome(bad.run, "differs", (shown,)))


def test_a_failed_lesson_names_its_silent_checks(read: Read) -> None:
    """What ended it, where, and which checks never reported."""
    lesson = read(GRADIENT)
    missing = Result(lesson.checks[0], "missing", "its cell never ran")
    run = plan.Run(lesson, lesson.defaults)
    text = printed(Outcome(run, "failed", (missing,), "the lesson left by sys.exit(0)", "cell-3"))
    assert f"01_small failed: {lesson.where('cell-3')}: the lesson left by sys.exit(0)" in text
    assert "01_small: never reported: gradient" in text


def test_the_table_counts_checks_and_shows_the_margin(read: Read) -> None:
    """One of two is green, and a quarter of a tolerance was used."""
    text = printed(outcome(read(GRADIENT + RAISES)))
    assert "1/2" in text
    assert "25%" in text


def test_without_a_terminal_there_are_plain_lines(read: Read) -> None:
    """A log gets one line a run, and no control characters."""
    text = io.StringIO()
    bad = outcome(read(GRADIENT), reason="1 of 1 checks: gradient", seconds=1.25)
    with report.Screen([bad.run], Console(file=text)) as screen:
        screen.on_outcome(bad)
    assert text.getvalue() == ("01_small: differs (1 of 1 checks: gradient), checks 0/1, 1.2 s\n")


def test_a_terminal_gets_a_live_table(read: Read) -> None:
    """It shows how far each run is."""
    text = io.StringIO()
    run = plan.Run(read(GRADIENT), {})
    console = Console(file=text, force_terminal=True, width=100)
    with report.Screen([run], console) as screen:
        screen.on_event(engine.Event("cell", run, Path(), cell=2, cells=7))
        screen._live.refresh()
    assert "3/7" in text.getvalue()


def test_junit_has_a_case_for_each_declared_check(read: Read, tmp_path: Path) -> None:
    """Taken from the lesson: `run`, and every check with file and line."""
    lesson = read(GRADIENT + RAISES)
    report.write([outcome(lesson)], tmp_path)
    cases = list(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml")))))
    assert [case.name for case in cases] == ["run", "gradient", "boom"]
    assert cases[1]._elem.get("file") == "lessons/01_small.py"
    assert cases[1]._elem.get("line") == str(lesson.checks[0].line)
    assert "largest difference 6" in cases[1].result[0].message
    assert cases[2].result == []


def test_junit_is_xml_whatever_a_lesson_says(read: Read, tmp_path: Path) -> None:
    """Colours and control characters of an error are left out."""
    lesson = read(GRADIENT)
    run = plan.Run(lesson, lesson.defaults)
    report.write([Outcome(run, "failed", reason="\x1b[31mred\x1b[0m \x00")], tmp_path)
    case = next(iter(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))))
    assert "red" in case.result[0].message


def test_a_fault_of_the_run_itself_fails_in_junit(read: Read, tmp_path: Path) -> None:
    """All checks green, and yet not verified: the case `run` says so."""
    lesson = read(GRADIENT)
    run = plan.Run(lesson, lesson.defaults)
    green = Result(lesson.checks[0], "verified")
    report.write([Outcome(run, "differs", (green,), "leased cuda:0, unseen")], tmp_path)
    case = next(iter(next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))))
    assert "leased cuda:0" in case.result[0].message


def test_an_old_report_is_forgotten(read: Read, tmp_path: Path) -> None:
    """A run that does not get to its report leaves none, rather than a green one."""
    report.write([outcome(read(GRADIENT))], tmp_path)
    report.forget(tmp_path)
    assert not list(tmp_path.glob("*.*ml")) + list(tmp_path.glob("*.json"))


def test_a_run_that_lacks_gpus_is_skipped_in_junit(read: Read, tmp_path: Path) -> None:
    """Not passed, not failed: skipped, with its reason."""
    run = plan.Run(read(GRADIENT), {}, gpus_needed=2)
    report.write([check.not_run(run)], tmp_path)
    suite = next(iter(JUnitXml.fromfile(str(tmp_path / "junit.xml"))))
    assert [case.result[0].message for case in suite] == ["needs 2 GPUs", "needs 2 GPUs"]


def test_the_json_report_has_all_that_the_table_has(read: Read, tmp_path: Path) -> None:
    """Status, parameters and every check, for programs."""
    report.write([outcome(read(GRADIENT))], tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["statuses"] == {"differs": 1}
    assert found["runs"][0]["parameters"] == {"size": 4}
    assert found["runs"][0]["checks"][0]["status"] == "differs"
