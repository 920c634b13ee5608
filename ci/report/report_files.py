"""The reports for programs: `report.json`, `junit.xml` and `summary.md`."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from sys import float_info
from typing import Any

from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Status
from ci.machine import atomic
from ci.report import github, junit
from ci.report.utilization import Utilization


def forget(folder: Path) -> None:
    """Remove the last reports: a run that fails before its own must not leave a green one."""
    for name in ("report.json", "junit.xml", "summary.md"):
        (folder / name).unlink(missing_ok=True)


def failed(folder: Path) -> list[tuple[str, dict[str, Any]]] | None:
    """Lesson and parameters of the runs that the last report has as red; None without a report."""
    runs = atomic.read_json(folder / "report.json").get("runs")
    if runs is None:
        return None
    good = (Status.VERIFIED, Status.UNCHANGED)
    return [(run["lesson"], run["parameters"]) for run in runs if run["status"] not in good]


def write(
    outcomes: Sequence[Outcome],
    folder: Path,
    matrices: Sequence[Matrix] = (),
    utilization: Sequence[Utilization] = (),
) -> None:
    """Write all reports into `folder`."""
    report = _report(outcomes, matrices, utilization)
    atomic.write_json(folder / "report.json", report)
    junit.write(outcomes, folder)
    github.write(outcomes, folder, matrices)


def _report(
    outcomes: Sequence[Outcome], matrices: Sequence[Matrix], utilization: Sequence[Utilization]
) -> dict[str, Any]:
    return {
        "statuses": Counter(outcome.status_text for outcome in outcomes),
        "runs": [outcome.to_json() for outcome in outcomes],
        "agreement": [_matrix(matrix) for matrix in matrices],
        "slots": [
            {**dataclasses.asdict(slot), "share": round(slot.share, 3)} for slot in utilization
        ],
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    """JSON has no infinity, so the largest float stands for it."""
    runs = [dict(zip(matrix.names, values, strict=True)) for values in matrix.runs]
    pairs = [
        {"runs": pair[::-1], **dataclasses.asdict(found), "size": min(found.size, float_info.max)}
        for pair, found in matrix.pairs.items()
    ]
    return {"lesson": matrix.lesson.name, "dtype": matrix.dtype, "runs": runs, "pairs": pairs}
