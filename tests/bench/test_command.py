"""`invoke bench` as a command: its options, its exit status and the files that it writes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ci.errors import UsageError
from tests.bench import benchmark
from tests.bench.conftest import ROOT
from tests.bench.fakes import fake
from tests.bench.report import ROWS, TARGETS, Row
from tests.conftest import ORACLE, Write


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_rounds_are_a_whole_number(text: str) -> None:
    """Anything else is an error of usage."""
    with pytest.raises(UsageError, match=f"--rounds {re.escape(text)}: must be a whole number"):
        benchmark.parse("", text)
    assert benchmark.parse("", "3")[1] == 3


def test_rows_are_chosen_by_name_and_keep_their_order() -> None:
    """Without names, all rows are measured."""
    assert benchmark.parse("", "1")[0] == [row for row in ROWS.values() if not row.named]
    assert benchmark.parse("sweep", "1")[0] == [ROWS["sweep"]]
    assert benchmark.parse("200, lessons", "1")[0] == [ROWS["lessons"], ROWS["200"]]
    with pytest.raises(UsageError, match="no such row; did you mean 'unchanged'"):
        benchmark.parse("unchangd", "1")
    with pytest.raises(UsageError, match="no such row; expected one of"):
        benchmark.parse(",", "1")


def test_a_bad_option_is_one_line() -> None:
    """The exit status is 2, and there is no traceback."""
    command = [sys.executable, "-m", "invoke", "bench", "--rounds", "few"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "--rounds few: must be a whole number from 1\n"


def test_each_target_is_of_contenders_of_its_row() -> None:
    """A target with a misspelt name would never be measured."""
    for target in TARGETS:
        names = {contender.name for contender in ROWS[target.row].contenders}
        assert {target.contender, *target.against} <= names
        assert target.aim <= target.limit


def test_the_exit_status_is_1_if_a_value_differs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reports are written all the same."""
    write(expected=ORACLE)
    for name in ("tasks.py", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for value, status in (("1", 0), ("2", 1)):
        row = Row("r", "a row", [fake("a", "1"), fake("b", value)])
        monkeypatch.setitem(ROWS, "r", row)
        assert benchmark.run("r", "1", tmp_path) == status
    assert (tmp_path / "build" / "bench.json").exists()


@pytest.mark.kernel
def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    """The cheapest row, once, in a project of its own."""
    for name in ("tasks.py", "pyproject.toml", "lessons", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "invoke", "bench", "--rows", "memory", "--rounds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "private memory of a run" in done.stdout
    (row,) = json.loads((tmp_path / "build" / "bench.json").read_text())["rows"]
    assert row["rounds"][0]["kernel"]["private_mb"] > 10
