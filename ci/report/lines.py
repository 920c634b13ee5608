"""The outcomes in words: lines for the terminal, for logs and for GitHub."""

from collections.abc import Sequence
from pathlib import Path

from ci.command_line import go_on_unread, printable
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Status
from ci.plan.planner import Run
from ci.report.utilization import Utilization

EPSILON = {"float32": ", epsilon 1.2e-07", "float64": ", epsilon 2.2e-16"}


class Log:
    """The lines of a plan without work, which starts without rich. A context, as a Terminal is."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def print(self, line: object) -> None:
        """Print a line."""
        if not self.quiet:
            try:
                print(printable(str(line)), flush=True)
            except BrokenPipeError:
                self.quiet = True
                go_on_unread()

    def on_event(self, _: object) -> None:
        """There are no events without work."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Print what became of a run."""
        self.print(outcome_text(outcome))

    def finish(self, *_: object) -> None:
        """The lines have said everything."""


def outcome_text(outcome: Outcome) -> str:
    """What became of a run, in a line."""
    reason = f" ({outcome.reason})" if outcome.reason else ""
    time = "" if outcome.status == Status.UNCHANGED else f", {outcome.seconds:.1f} s"
    counted = f"checks {check_count(outcome)}{not_compared_text(outcome)}"
    return f"{outcome.run.name}: {outcome.verdict}{reason}, {counted}{time}"


def not_compared_text(outcome: Outcome) -> str:
    """How many shown outputs nobody compared, after a comma; empty if there are none."""
    number = outcome.not_compared
    return f", {number} output{'s' * (number > 1)} not compared" if number else ""


def interrupted_text(
    runs: Sequence[Run],
    outcomes: Sequence[Outcome],
    written: Sequence[Path] = (),
    detached: Sequence[str] = (),
    *,
    is_scheduled: bool = False,
) -> str:
    """What an interrupt has left: the HTML at most is published, and what was executed is kept.

    Jobs of a scheduler are cancelled, but those of `detached` runs are not.
    """
    kept = [o.run.name for o in outcomes if not o.skipped]
    only = f"only the HTML in {' and '.join(folder.name for folder in written)}"
    published = f"{only if written else 'nothing'} was published"
    if is_scheduled:
        published += "; this command's Slurm jobs are cancelled"
    if detached:
        words = ", ".join(detached)
        published += f"; Slurm jobs {words} go on, and the next command collects their runs"
    if not kept:
        return f"interrupted; {published}"
    names = ", ".join(kept[:5]) + (", …" if len(kept) > 5 else "")
    return (
        f"interrupted; {published}; {len(kept)} of {len(runs)} runs are kept, and the "
        f"next invoke run does not execute them again: {names}"
    )


def utilization_text(slots: Sequence[Utilization]) -> str:
    """How much of the time the slots had a run, in words."""
    shares = [slot.share for slot in slots]
    busy = sum(shares) / len(shares)
    least = f", the least used {min(shares):.0%}" if len(slots) > 1 else ""
    return f"{len(slots)} in parallel, busy {busy:.0%} of {slots[0].total_s:.1f} s{least}"


def agreement_text(matrix: Matrix) -> str:
    """How closely the runs agree, in words: the largest difference, its check, and its two runs."""
    worst, *runs = matrix.worst
    most = "are equal where they are compared"
    if worst.size:
        most = f"differ by {worst} at most, in {worst.check}: {' and '.join(runs)}"
    compared = f"{matrix.compared} of {len(matrix.lesson.checks)} checks compared"
    legend = f"= is equal to the bit, – nothing to compare{EPSILON.get(matrix.dtype, '')}"
    return f"{matrix.lesson.name}, {matrix.dtype}: the runs {most}\n  {compared}; {legend}"


def check_count(outcome: Outcome) -> str:
    """How many of a lesson's checks are green: `26/31`, or `none`."""
    total = len(outcome.run.lesson.checks)
    return f"{sum(result.green for result in outcome.results)}/{total}" if total else "none"
