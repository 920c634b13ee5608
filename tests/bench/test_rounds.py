"""Rounds: contenders take turns, and only those that show the same values have a time."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from ci.errors import CourseError
from tests.bench import benchmark, report
from tests.bench.conftest import ROOT
from tests.bench.fakes import fake, measure
from tests.bench.report import CONTENDERS, Row


def test_contenders_take_turns(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In as many rounds as there are contenders, each has each place once."""
    row = Row("r", "a row", [fake("a"), fake("b"), fake("c")])
    found = benchmark.measure(row, work, rounds=2)
    said = [line.removeprefix("r: round ") for line in capsys.readouterr().out.splitlines()]
    assert said == [
        *("1 of 2: a", "1 of 2: b", "1 of 2: c"),
        *("2 of 2: b", "2 of 2: c", "2 of 2: a"),
    ]
    assert [len(found.figures(name, "wall_s")) for name in "abc"] == [2, 2, 2]


def test_a_contender_that_shows_another_value_has_no_time(work: Path) -> None:
    """The fault names the check and both values."""
    found = measure(work, fake("reference"), fake("same"), fake("other", "2"))
    differs = "differs at 01_small-000 gradient: shows 2, the reference 1"
    assert found.faults == {"other": differs}
    times = [found.figures(name, "wall_s") for name in ("reference", "same", "other")]
    assert [len(walls) for walls in times] == [1, 1, 0]


def test_values_are_compared_check_by_check() -> None:
    """Of the notebooks that both executed; a check that shows nothing differs."""
    expected = {"a x": "1", "a y": "3", "b x": "5"}
    benchmark.compare(expected, expected, ["a", "b"])
    benchmark.compare({"a x": "1", "a y": "3"}, expected, ["a"])
    with pytest.raises(CourseError, match="differs at a y: shows nothing, the reference 3"):
        benchmark.compare({"a x": "1"}, expected, ["a"])
    with pytest.raises(CourseError, match="differs at a z: shows 5, the reference nothing"):
        benchmark.compare({"a z": "5"}, {}, ["a"])


def test_line_breaks_and_names_of_classes_may_differ(work: Path) -> None:
    """IPython breaks long lines and shortens classes; plain Python does neither."""
    kernel = fake("kernel", "(int, tensor([1.,\n  2.]))")
    python = fake("python", "(<class 'int'>, tensor([1., 2.]))")
    assert measure(work, kernel, python).faults == {}


def test_absent_contenders_are_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A contender whose programs are missing does not run, and that is no fault."""
    lacking = fake("lacking", needs=("nosuchprogram", "sh"))
    found = measure(work, fake("a"), lacking)
    assert ([*found.rounds[0]], found.faults) == (["a"], {})
    report.show(found, Console(width=140))
    assert re.search("lacking.* missing here: nosuchprogram ", capsys.readouterr().out)


def test_a_failing_command_says_why(work: Path) -> None:
    """A failing reference ends the benchmark, because there is nothing to compare with."""
    broken = fake("broken", script="echo no disk; (exit 3); echo never")
    found = measure(work, fake("a"), broken)
    assert found.faults == {"broken": "ended with status 3: no disk"}
    with pytest.raises(CourseError, match="r: broken: ended with status 3: no disk"):
        measure(work, broken)


def test_a_late_contender_is_killed_and_stays_in_the_table(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no time, but a reason. A late reference ends the benchmark."""
    late = fake("late", script="sleep 60")
    found = measure(work, fake("a"), late, deadline_s=0.5)
    assert found.faults == {"late": "killed, because it was not done in 0.5 s"}
    report.show(found, Console(width=140))
    assert re.search("late.* killed, because it was not done in 0.5 s", capsys.readouterr().out)
    with pytest.raises(CourseError, match="r: late: killed, because it was not done"):
        measure(work, late, deadline_s=0.5)


@pytest.mark.kernel
def test_all_contenders_show_the_same(work: Path) -> None:
    """The pipeline, two competitors and both lower bounds, for real."""
    names = ("pipeline", "checked", "papermill", "pool", "nbmake", "scripts", "process")
    found = measure(work, *(CONTENDERS[name] for name in names))
    assert found.faults == {}
    for sample in found.rounds[0].values():
        assert sample.cpu_s > 0
        assert sample.peak_mb > 20 or sample.cpu_s < 1  # too short for a look
    assert not (ROOT / "build" / "runs" / "01_small").exists()
