"""The outcomes as GitHub shows them: the summary of a job, and annotations at a lesson's line.

What comes from a lesson stands in code, never in markup or in a command. There is an end to it:
GitHub drops a summary of more than 1 MiB, and shows ten annotations of a step.
"""

import os
import re
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from ci import atomic
from ci.judge.agreement import Matrix
from ci.judge.verdicts import Outcome
from ci.report import terminal
from ci.report.terminal import Fault

ROWS, FAULTS, ANNOTATIONS = 200, 50, 10
SPAN, BLOCK = 120, 3000  # characters
FACTS = ("torch", "cuda", "NumPy", "Python", "machine", "image")  # of an environment


def write(outcomes: Sequence[Outcome], folder: Path, agreed: Sequence[Matrix] = ()) -> None:
    """Write `summary.md` into `folder`, whole."""
    atomic.write(folder / "summary.md", markdown(outcomes, agreed))


def markdown(outcomes: Sequence[Outcome], agreed: Sequence[Matrix] = ()) -> str:
    """The summary: a table of the runs, how they agree, what is wrong, what was not run, and where
    it ran."""
    green = sum(outcome.green for outcome in outcomes)
    faults = list(chain.from_iterable(map(terminal.faults, outcomes)))
    lacking = [outcome for outcome in outcomes if outcome.needs_gpus]
    same = sum(outcome.status == "unchanged" for outcome in outcomes)
    blocks = [
        f"# The course: {green} of {len(outcomes)} runs verified"
        + (f", {same} of them unchanged" if same else ""),
        _table(outcomes[:ROWS]),
        _more(len(outcomes) - ROWS, "runs"),
        "## How the runs agree" if agreed else "",
        _block("\n".join(map(terminal.agreement_of, agreed))) if agreed else "",
        "## What is wrong" if faults else "",
        *map(_block, faults[:FAULTS]),
        _more(len(faults) - FAULTS, "faults"),
        "## What was not run here" if lacking else "",
        "\n".join(f"- {_code(o.run.name)} {o.status}" for o in lacking[:ROWS]),
        _environment(outcomes),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def annotations(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines by which GitHub marks the lines of lessons; none where we are not on GitHub."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    faults = chain.from_iterable(map(terminal.faults, outcomes))
    return [_annotation(fault) for fault in islice(faults, ANNOTATIONS)]


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
    cells = name, status, terminal.count(outcome), device, f"{outcome.seconds:.1f} s"
    return " | ".join(["", *(cell.replace("|", r"\|") for cell in cells), ""]).strip()


def _block(said: object) -> str:
    """A fault, or what else there is to say, as the terminal shows it."""
    text = _clip(str(said), BLOCK)
    fence = _fence(text, 3)
    return f"{fence}text\n{text}\n{fence}"


def _environment(outcomes: Sequence[Outcome]) -> str:
    found = {name: {o.environment.get(name, "") for o in outcomes} - {""} for name in FACTS}
    lines = [f"- {name}: {_code(', '.join(sorted(v)))}" for name, v in found.items() if v]
    return "\n".join(["## Where", *lines]) if lines else ""


def _more(count: int, what: str) -> str:
    return f"… and {count} more {what}: see report.json." if count > 0 else ""


def _code(text: str) -> str:
    """`text` in one line, as code: Markdown shows it as it is."""
    text = _clip(" ".join(text.split()), SPAN)
    fence = _fence(text, 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _fence(text: str, least: int) -> str:
    """Backticks that `text` can't end: one more than it has in a row."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
