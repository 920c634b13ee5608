"""The reports for programs."""

import dataclasses
import json
import math
from pathlib import Path

from ci.report import report_files
from tests.conftest import GRADIENT, Read
from tests.judge.test_agreement import nearly_equal
from tests.report.test_terminal import outcome

REPORTS = ("report.json", "junit.xml", "summary.md")


def test_an_old_report_is_removed(read: Read, tmp_path: Path) -> None:
    """A run that ends early must not leave an old green report."""
    report_files.write([outcome(read(GRADIENT))], tmp_path)
    assert {path.name for path in tmp_path.glob("*.*")} >= set(REPORTS)
    report_files.forget(tmp_path)
    assert not set(REPORTS) & {path.name for path in tmp_path.glob("*.*")}


def test_the_json_report_has_the_content_of_the_table(read: Read, tmp_path: Path) -> None:
    """Status, parameters and every check."""
    report_files.write([outcome(read(GRADIENT))], tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["statuses"] == {"differs": 1}
    assert found["runs"][0]["parameters"] == {"size": 4}
    assert found["runs"][0]["checks"][0]["status"] == "differs"


def test_the_json_report_has_the_agreement_of_runs(read: Read, tmp_path: Path) -> None:
    """Each pair of runs, with its largest difference, its check, and the number of checks."""
    outcomes, agreed = nearly_equal(read)
    report_files.write(outcomes, tmp_path, agreed)
    found = json.loads((tmp_path / "report.json").read_text())
    pair = {"runs": [0, 1], "size": 2.0**-40 / 40, "check": "total", "checks": 1}
    runs = [{"ranks": 1}, {"ranks": 2}]
    assert found["agreement"] == [
        {"lesson": "01_small", "dtype": "float64", "runs": runs, "pairs": [pair]}
    ]


def test_the_json_report_is_valid_for_an_infinite_difference(read: Read, tmp_path: Path) -> None:
    """JSON has no infinity."""
    outcomes, [matrix] = nearly_equal(read)
    pairs = {
        pair: dataclasses.replace(found, size=math.inf) for pair, found in matrix.pairs.items()
    }
    report_files.write(outcomes, tmp_path, [dataclasses.replace(matrix, pairs=pairs)])
    assert "Infinity" not in (tmp_path / "report.json").read_text()
