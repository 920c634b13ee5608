"""The outcomes for GitHub: the summary of a job, and annotations at the lines of lessons.

Text from a lesson appears as code, never as markup or as a command. Both are limited in length:
GitHub drops a summary of more than 1 MiB, and shows ten annotations per step.
"""

import os
import re
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Status
from ci.machine import atomic
from ci.report.faults import Fault, faults
from ci.report.lines import agreement_text, check_count

ROWS, FAULTS, ANNOTATIONS = 200, 50, 10
SPAN, BLOCK = 120, 3000  # characters
FACTS = ("torch", "cuda", "NumPy", "Python", "machine", "image", "Slurm job")  # of an environment


def write(outcomes: Sequence[Outcome], folder: Path, matrices: Sequence[Matrix] = ()) -> None:
    """Write `summary.md` into `folder`."""
    atomic.write(folder / "summary.md", markdown(outcomes, matrices))


def markdown(outcomes: Sequence[Outcome], matrices: Sequence[Matrix] = ()) -> str:
    """The summary: the runs, how closely they agree, the faults, skipped runs, the environment."""
    green = sum(outcome.green for outcome in outcomes)
    found = list(chain.from_iterable(map(faults, outcomes)))
    skipped = [outcome for outcome in outcomes if outcome.skipped]
    unchanged = sum(outcome.status == Status.UNCHANGED for outcome in outcomes)
    blocks = [
        f"# The course: {green} of {len(outcomes)} runs verified"
        + (f", {unchanged} of them unchanged" if unchanged else ""),
        _table(outcomes[:ROWS]),
        _more(len(outcomes) - ROWS, "runs"),
        "## How the runs agree" if matrices else "",
        _block("\n".join(map(agreement_text, matrices))) if matrices else "",
        "## What is wrong" if found else "",
        *map(_block, found[:FAULTS]),
        _more(len(found) - FAULTS, "faults"),
        "## Not run here" if skipped else "",
        "\n".join(f"- {_code(o.run.name)} {o.status_text}" for o in skipped[:ROWS]),
        _environment(outcomes),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def annotations(outcomes: Sequence[Outcome]) -> list[str]:
    """The commands that annotate the lines of lessons; none outside GitHub Actions."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    found = chain.from_iterable(map(faults, outcomes))
    return [_annotation(fault) for fault in islice(found, ANNOTATIONS)]


def _annotation(fault: Fault) -> str:
    facts = {"file": fault.file, "line": str(max(fault.line, 1)), "title": _clip(fault.title, SPAN)}
    properties = ",".join(f"{name}={_property(text)}" for name, text in facts.items())
    return f"::error {properties}::{_data(_clip(fault.text, BLOCK))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = ["| lesson | status | checks | device | time |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(rows + [_row(outcome) for outcome in outcomes])


def _row(outcome: Outcome) -> str:
    status = outcome.verdict if outcome.green else f"**{outcome.verdict}**"
    name, device = _code(outcome.run.name), _code(outcome.run.device)
    cells = name, status, check_count(outcome), device, f"{outcome.seconds:.1f} s"
    return " | ".join(["", *(cell.replace("|", r"\|") for cell in cells), ""]).strip()


def _block(shown: object) -> str:
    """A fault, or other text, as the terminal shows it."""
    text = _clip(str(shown), BLOCK)
    fence = _fence(text, 3)
    return f"{fence}text\n{text}\n{fence}"


def _environment(outcomes: Sequence[Outcome]) -> str:
    found = {name: {o.environment.get(name, "") for o in outcomes} - {""} for name in FACTS}
    lines = [f"- {name}: {_code(', '.join(sorted(v)))}" for name, v in found.items() if v]
    return "\n".join(["## Where", *lines]) if lines else ""


def _more(count: int, what: str) -> str:
    return f"… and {count} more {what}: see report.json." if count > 0 else ""


def _code(text: str) -> str:
    """`text` in one line, as code, which Markdown shows literally."""
    text = _clip(" ".join(text.split()), SPAN)
    fence = _fence(text, 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _fence(text: str, least: int) -> str:
    """Backticks that `text` cannot close: one more than it has in a row."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
