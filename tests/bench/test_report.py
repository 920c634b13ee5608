"""Ratios, verdicts and the report. No test asserts how fast the pipeline is."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import report
from tests.bench.report import ROWS, Result, Target
from tests.bench.stopwatch import Sample

TARGET = Target("title", "lessons", "wall_s", "checked", 0.6, 0.45, ("pool", "nbmake"))


def result(**times: Sequence[float]) -> Result:
    """A result of the row `lessons` with these wall times, round by round."""
    rounds = [dict(zip(times, walls, strict=True)) for walls in zip(*times.values(), strict=True)]
    samples = [{name: Sample(wall, wall) for name, wall in walls.items()} for walls in rounds]
    return Result(ROWS["lessons"], samples)


def test_a_ratio_is_of_one_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    found = result(pipeline=[1.0, 2.0], pool=[4.0, 8.0])
    assert found.ratios("pool", "wall_s") == [4.0, 4.0]


def test_a_target_is_against_the_best_of_each_round() -> None:
    """Even if that is another contender in each round, or one of them is missing."""
    found = result(checked=[1.0, 1.0], pool=[2.0, 4.0], nbmake=[4.0, 2.0])
    assert report.judge(TARGET, found) == ([0.5, 0.5], "met")
    assert report.judge(TARGET, result(checked=[1.0], pool=[4.0])) == ([0.25], "aim reached")
    for lacking in (result(checked=[1.0]), result(pool=[1.0])):
        assert report.judge(TARGET, lacking) == ([], "not measured")


def test_a_target_may_be_a_difference_or_a_figure() -> None:
    """Such as seconds beyond another command, or memory."""
    found = result(checked=[1.5, 1.0], pool=[1.0, 0.75])
    assert report.judge(replace(TARGET, difference=True), found)[0] == [0.5, 0.25]
    assert report.judge(replace(TARGET, against=()), found)[0] == [1.5, 1.0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([], "not measured"),
        ([0.1, 0.45, 9.0], "aim reached"),
        ([0.5], "met"),
        ([0.6, 0.6], "met"),
        ([0.1, 0.61, 0.7], "missed"),
    ],
)
def test_the_median_decides(values: list[float], verdict: str) -> None:
    """One disturbed round does not."""
    assert report.judge(replace(TARGET, against=()), result(checked=values)) == (values, verdict)


def test_a_target_is_not_judged_by_those_who_are_left() -> None:
    """A contender that failed or was late could be the best one."""
    for name in ("checked", "pool"):
        failed = result(checked=[1.0], pool=[4.0], nbmake=[9.0])
        failed.faults[name] = "killed, because it was not done in 180 s"
        assert report.judge(TARGET, failed) == ([], "not measured")


def test_a_table_has_ratios_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """The median of the rounds, and their range."""
    found = result(pipeline=[1.0, 3.0, 2.0], pool=[4.0, 6.0, 8.0])
    found.faults = {"nbmake": "no disk"}
    report.show(found, Console(width=140))
    out = capsys.readouterr().out
    assert "2.00 (1.00–3.00)" in out
    assert "4.00 (2.00–4.00)" in out
    assert re.search("nbmake.* no disk ", out)


def test_files_hold_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bench.json` has each round, `bench.md` the table of the verdicts that was printed."""
    found = result(pipeline=[3.0], checked=[1.0], pool=[2.0])
    report.conclude([found], Console(width=140), tmp_path)
    printed = capsys.readouterr().out
    assert re.search(r"executed and checked, wall.* 0\.55 .* 0\.50 .* met ", printed)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"][0]["rounds"][0]["checked"]["wall_s"] == 1.0
    verdicts = [target["verdict"] for target in written["targets"]]
    assert verdicts == ["met", "missed", "not measured"]  # the three of this row
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == [f"{each} |" for each in verdicts]
