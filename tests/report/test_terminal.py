"""Reports in the terminal, for people and in logs."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ci.execute.events import CellStarted, Started, Waiting
from ci.judge.outcome import Outcome, Result, Status, skipped_outcome
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.report import faults, lines, report_files
from ci.report.terminal import Terminal
from ci.report.utilization import Utilization
from tests.conftest import GRADIENT, Read
from tests.judge.test_agreement import nearly_equal

RAISES = '# %% check="boom" raises="RuntimeError"\nraise RuntimeError\n'


def outcome(lesson: Lesson, status: str = "differs", **facts: Any) -> Outcome:
    """An outcome whose first check differs and whose other checks are verified."""
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
    return Outcome(planner.Run(lesson, lesson.defaults), status, results, **facts)


def printed(*outcomes: Outcome) -> str:
    """The final report in a log."""
    text = io.StringIO()
    runs = [outcome.run for outcome in outcomes]
    Terminal(runs, Console(file=text, width=100)).finish(outcomes)
    return text.getvalue()


def test_a_mismatch_reads_like_a_good_test_failure(read: Read) -> None:
    """Lesson, line, check, derivation, shown and expected value, difference and tolerance."""
    lesson = read(GRADIENT)
    text = printed(outcome(lesson))
    place = lesson.location(lesson.checks[0].cell)
    assert f"01_small differs: {place}: check 'gradient' largest difference 6 at [3]" in text
    for fact in ("dy/dx_i = 4 x_i.", "[0. 6. 12. 18.]", "[0. 4. 8. 12.]", "2e-6 rel"):
        assert fact in text


def test_brackets_in_a_value_are_not_markup(read: Read) -> None:
    """Rich would read [red] as a colour."""
    bad = outcome(read(GRADIENT))
    shown = Result(bad.results[0].check, "differs", shown="[red]1[/red]")
    assert "[red]1[/red]" in printed(Outcome(bad.run, "differs", (shown,)))


def test_a_failed_lesson_names_the_checks_that_never_reported(read: Read) -> None:
    """With the reason and the line."""
    lesson = read(GRADIENT)
    missing = Result(lesson.checks[0], "missing", "its cell never ran")
    run = planner.Run(lesson, lesson.defaults)
    text = printed(Outcome(run, "failed", (missing,), "the lesson left by sys.exit(0)", "cell-3"))
    assert f"01_small failed: {lesson.location('cell-3')}: the lesson left by sys.exit(0)" in text
    assert "01_small: never reported: gradient" in text


def test_the_table_counts_checks_and_shows_the_margin(read: Read) -> None:
    """One of two checks is green, and used a quarter of its tolerance."""
    text = printed(outcome(read(GRADIENT + RAISES)))
    assert "1/2" in text
    assert "25%" in text


def test_an_unchanged_run_shows_its_date(read: Read) -> None:
    """The log and the JSON report also have the time of day."""
    lesson = read(GRADIENT)
    result = Result(lesson.checks[0], "verified", margin=0.25)
    run = planner.Run(lesson, lesson.defaults)
    unchanged = Outcome(run, "unchanged", (result,), seconds=2.0, date="2026-01-01 12:00 UTC")
    log = io.StringIO()
    with Terminal([run], Console(file=log)) as shown:
        shown.on_outcome(unchanged)
    assert log.getvalue() == "01_small: unchanged since 2026-01-01 12:00 UTC, checks 1/1\n"
    assert re.search("01_small .* 1/1 +25% +2026-01-01 +unchanged", printed(unchanged))
    assert unchanged.to_json()["date"] == "2026-01-01 12:00 UTC"
    assert list(faults.faults(unchanged)) == []


@pytest.mark.parametrize(("quiet", "count"), [(False, 2), (True, 0)])
def test_a_plan_without_work_has_the_same_lines(
    read: Read, capsys: pytest.CaptureFixture[str], quiet: bool, count: int
) -> None:
    """One line per run, as in a log; a quiet one prints nothing."""
    run = planner.Run(read(GRADIENT), {})
    unchanged = Outcome(run, "unchanged", date="2026-01-01 12:00 UTC")
    with lines.Log(quiet=quiet) as log:
        log.on_outcome(unchanged)
        log.on_outcome(skipped_outcome(planner.Run(read(GRADIENT), {}, gpus_needed=2)))
        log.finish([unchanged])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == count
    assert quiet or printed[0] == "01_small: unchanged since 2026-01-01 12:00 UTC, checks 0/1"


def agreement_report(read: Read, runs: int, width: int) -> str:
    """The final report of a sweep whose runs differ slightly."""
    outcomes, agreed = nearly_equal(read, runs)
    text = io.StringIO()
    Terminal([], Console(file=text, width=width)).finish(outcomes, agreed)
    return text.getvalue()


def test_a_sweep_ends_with_the_agreement_of_its_runs(read: Read) -> None:
    """A table with a row and a column per run, and the largest difference with check and runs."""
    text = agreement_report(read, runs=3, width=100)
    table = text[text.index("  ranks  ") :]
    assert [line.split() for line in table.splitlines() if line.startswith("  ranks")] == [
        ["ranks", "1", "2"],
        ["ranks=2", "2.3e-14"],
        ["ranks=3", "4.5e-14", "2.3e-14"],
    ]
    assert (
        "01_small, float64: the runs differ by 4.5e-14 at most, in total: ranks=1 and ranks=3\n"
        "  1 of 2 checks compared; = is equal to the bit, – nothing to compare, epsilon 2.2e-16"
    ) in text


def test_equal_runs_are_equal_only_in_the_compared_checks(read: Read) -> None:
    """The sentence says nothing about the other checks."""
    _, [matrix] = nearly_equal(read)
    equal = {pair: dataclasses.replace(found, size=0.0) for pair, found in matrix.pairs.items()}
    text = lines.agreement_text(dataclasses.replace(matrix, pairs=equal))
    assert text.startswith(
        "01_small, float64: the runs are equal where they are compared\n  1 of 2"
    )


def test_a_matrix_too_wide_for_the_terminal_becomes_one_sentence(read: Read) -> None:
    """Truncated numbers would be misread."""
    text = agreement_report(read, runs=12, width=80)
    assert "the runs differ by 2.5e-13 at most" in text
    assert "\n  ranks=2" not in text


def test_without_a_terminal_there_are_plain_lines(read: Read) -> None:
    """A log gets one line per run, without control characters."""
    text = io.StringIO()
    bad = outcome(read(GRADIENT), reason="1 of 1 checks: gradient", seconds=1.25)
    with Terminal([bad.run], Console(file=text)) as shown:
        shown.on_outcome(bad)
    assert text.getvalue() == ("01_small: differs (1 of 1 checks: gradient), checks 0/1, 1.2 s\n")


def test_a_terminal_gets_a_live_table(read: Read) -> None:
    """It shows the progress of each run."""
    text = io.StringIO()
    run = planner.Run(read(GRADIENT), {})
    console = Console(file=text, force_terminal=True, width=100)
    with Terminal([run], console) as shown:
        shown.on_event(CellStarted(run, 2, 7))
    assert "3/7" in text.getvalue()


def test_the_live_table_of_a_sweep_fits_the_terminal(read: Read) -> None:
    """It begins with the runs in progress, and counts the others."""
    runs = planner.runs([read(GRADIENT)], ["size=" + ",".join(map(str, range(2, 52)))], [])
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, height=12)
    with Terminal(runs, console) as shown:
        shown.on_outcome(Outcome(runs[0], Status.VERIFIED))
        shown.on_event(Started(runs[40], 0, 0.0))
    last = text.getvalue().rpartition("parameters")[2]
    assert "1 of 50 runs are done" in last
    assert last.index("size=42") < last.index("size=3 ")
    assert last.count("01_small") == 9


def test_a_run_that_waits_again_shows_why(read: Read) -> None:
    """And no longer the job on the node that was lost."""
    lesson = read(GRADIENT)
    run = planner.Run(lesson, lesson.defaults)
    text = io.StringIO()
    with Terminal([run], Console(file=text, width=100, force_terminal=True)) as shown:
        shown.on_event(Started(run, 0, 0.0, job="12 (n1)"))
        shown.on_event(Waiting(run, "to execute again: Slurm lost its node"))
    last = text.getvalue().rpartition("parameters")[2]
    assert "Slurm lost its node" in last
    assert "12 (n1)" not in last


def test_kernels_that_were_not_forked_are_reported(read: Read) -> None:
    """With the reason, once for all runs; nothing is said about forked ones."""
    fresh = {"kernel": "fresh: an import warns: no"}
    runs = [outcome(read(), "verified", environment=e) for e in (fresh, fresh, {})]
    assert printed(*runs).count("an import warns: no") == 1
    assert "kernels" not in printed(runs[2])


def test_the_utilization_of_slots_is_shown(read: Read, tmp_path: Path) -> None:
    """One line in the terminal, and each slot in the JSON report."""
    slots = [Utilization(0, 3, 9.0, 10.0, ()), Utilization(1, 2, 7.5, 10.0, ("1",))]
    assert lines.utilization_text(slots) == "2 in parallel, busy 82% of 10.0 s, the least used 75%"
    report_files.write([outcome(read(GRADIENT))], tmp_path, utilization=slots)
    found = json.loads((tmp_path / "report.json").read_text())["slots"]
    assert [slot["share"] for slot in found] == [0.9, 0.75]
    assert found[1]["gpus"] == ["1"]
