"""What the outcomes are, for machines: `report.json`, and what each attempt keeps of its own."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from sys import float_info
from typing import Any

from ci import atomic
from ci.judge.agreement import Matrix
from ci.judge.verdicts import Outcome, Result
from ci.report.utilization import Use


def forget(folder: Path) -> None:
    """Remove the last report: a run that does not get to its own must not leave a green one."""
    for name in ("report.json", "junit.xml", "summary.md"):
        (folder / name).unlink(missing_ok=True)


def write(
    outcomes: Sequence[Outcome],
    folder: Path,
    agreed: Sequence[Matrix] = (),
    uses: Sequence[Use] = (),
) -> None:
    """Write `report.json` into `folder`, whole."""
    report = {
        "statuses": Counter(outcome.status for outcome in outcomes),
        "runs": list(map(of, outcomes)),
        "agreement": list(map(agreement, agreed)),
        "slots": [{**dataclasses.asdict(use), "share": round(use.share, 3)} for use in uses],
    }
    atomic.write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))


def of(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    run = outcome.run
    return {
        "lesson": run.lesson.name,
        "parameters": dict(run.parameters),
        "device": run.device,
        "threads": run.threads,
        "status": outcome.status,
        "date": outcome.date,
        "reason": outcome.reason,
        "at": run.lesson.where(outcome.at) if outcome.at else "",
        "seconds": round(outcome.seconds, 3),
        "attempt": str(outcome.attempt or ""),
        "environment": dict(outcome.environment),
        "checks": [checked(result) for result in outcome.results],
    }


def agreement(matrix: Matrix) -> dict[str, Any]:
    """A matrix of differences as plain data; JSON has no infinity: the largest number is it."""
    runs = [dict(zip(matrix.names, values, strict=True)) for values in matrix.runs]
    pairs = [
        {"runs": pair[::-1], **dataclasses.asdict(found), "size": min(found.size, float_info.max)}
        for pair, found in matrix.pairs.items()
    ]
    return {"lesson": matrix.lesson.name, "dtype": matrix.dtype, "runs": runs, "pairs": pairs}


def checked(result: Result) -> dict[str, Any]:
    """A check's result as plain data."""
    facts = dataclasses.asdict(result)
    check = facts.pop("check")
    return {"name": check["name"], "kind": check["kind"], "line": check["line"], **facts}
