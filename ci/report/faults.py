"""What is wrong with an outcome, each fault at its line of the lesson."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ci.handout.markdown import plain
from ci.judge.outcome import CheckStatus, Outcome, Result, Status
from ci.plan.attempts import LOG
from ci.plan.planner import Run


@dataclass(frozen=True)
class Fault:
    """A fault at a line of a lesson; line 0 if no cell is at fault."""

    title: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else ""
        return f"{self.title}: {place}{self.text}"


def faults(outcome: Outcome) -> Iterator[Fault]:
    """The faults of an outcome: first the fault that ended the run, then those of its checks."""
    bad = [result for result in outcome.results if not result.green]
    if fault := run_fault(outcome):
        yield fault
        bad = [result for result in bad if result.status != CheckStatus.MISSING]
    for result in bad:
        yield check_fault(outcome, result)


def run_fault(outcome: Outcome) -> Fault | None:
    """The fault of a run, beside those of its checks; None if there is none."""
    if outcome.green or outcome.skipped:
        return None
    if outcome.status == Status.DIFFERS and not all(result.green for result in outcome.results):
        return None
    run = outcome.run
    missing = [r.check.name for r in outcome.results if r.status == CheckStatus.MISSING]
    lines = [outcome.reason]
    if outcome.attempt:
        lines.append(f"  log: {outcome.attempt / LOG}")
    if missing and not outcome.machine_fault:
        lines.append(f"{run.name}: never reported: {', '.join(missing)}")
    line = run.lesson.line(outcome.cell) if outcome.cell else 0
    return _fault(run, line, outcome.status_text, lines)


def check_fault(outcome: Outcome, result: Result) -> Fault:
    """The fault of a check that is not green."""
    facts = {
        "derivation": result.derivation,
        "shown": result.shown,
        "expected": result.expected,
        "tolerance": result.tolerance,
    }
    lines = [f"check '{result.check.name}' {result.message}"]
    lines += [f"  {label:<12}{fact}" for label, fact in facts.items() if fact]
    return _fault(outcome.run, result.check.line, result.status, lines)


def _fault(run: Run, line: int, status: str, lines: Sequence[str]) -> Fault:
    title, text = plain(f"{run.name} {status}"), plain("\n".join(lines))
    return Fault(title, script_path(run), line, text)


def script_path(run: Run) -> str:
    """The lesson's script as people and CI systems read it: `lessons/03_autograd.py`."""
    return f"{run.lesson.path.parent.name}/{run.lesson.path.name}"
