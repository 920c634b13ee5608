"""What the outcomes are, for people: the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from sys import maxsize

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from ci.execute.engine import Event
from ci.handout.markdown import plain
from ci.judge.agreement import Matrix
from ci.judge.verdicts import Outcome, Result
from ci.plan.attempts import LOG
from ci.plan.planner import Run
from ci.report.utilization import Use

EPSILON = {"float32": ", epsilon 1.2e-07", "float64": ", epsilon 2.2e-16"}
COLOURS = {"verified": "green", "unchecked": "yellow", "running": "cyan", "waiting": "dim"}
COLOURS["unchanged"] = "green"


class Screen:
    """The live table of a plan; plain lines where there is no terminal."""

    def __init__(self, runs: Sequence[Run], console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self._rows: dict[int, tuple[Run, str, str]] = {
            id(run): (run, "waiting", "") for run in runs
        }
        self._live = Live(
            get_renderable=self._table,
            console=self.console,
            transient=True,
            refresh_per_second=8,
            auto_refresh=self.console.is_terminal,
        )

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def say(self, line: str) -> None:
        """A line that stays, above the table."""
        self.console.print(line, markup=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Show how far a run is."""
        if event.kind == "waiting":
            self.say(f"{event.run.name} waits for GPUs that another run on this machine has")
        if event.kind == "cell":
            self._rows[id(event.run)] = (
                event.run,
                "running",
                f"cell {event.cell + 1}/{event.cells}",
            )

    def on_outcome(self, outcome: Outcome) -> None:
        """Show what became of a run."""
        self._rows[id(outcome.run)] = (outcome.run, outcome.status, count(outcome))
        if not self.console.is_terminal:
            self.say(line(outcome))

    def finish(
        self, outcomes: Sequence[Outcome], agreed: Sequence[Matrix] = (), uses: Sequence[Use] = ()
    ) -> None:
        """Each fault as a good test failure reads, the table of all outcomes, how busy the slots
        were, how the outcomes agree.
        """
        for outcome in outcomes:
            for fault in faults(outcome):
                self.say(str(fault))
        self.console.print(_final(outcomes))
        if uses:
            self.say(f"{utilisation(uses)}\n")
        for matrix in agreed:
            table, wide = _agreement(matrix), self.console.options.update(max_width=maxsize)
            if self.console.measure(table, options=wide).minimum <= self.console.width:
                self.console.print(table)
            self.say(f"{agreement_of(matrix)}\n")

    def _table(self) -> Table:
        table = Table("lesson", "parameters", "device", "status", "checks", box=None)
        for run, status, text in self._rows.values():
            colour = COLOURS.get(status, "red")
            table.add_row(run.lesson.name, run.label, run.device, Text(status, colour), text)
        return table


def line(outcome: Outcome) -> str:
    """One outcome in a line."""
    because = f" ({outcome.reason})" if outcome.reason else ""
    took = "" if outcome.status == "unchanged" else f", {outcome.seconds:.1f} s"
    return f"{outcome.run.name}: {outcome.verdict}{because}, checks {count(outcome)}{took}"


def _final(outcomes: Sequence[Outcome]) -> Table:
    swept = any(outcome.run.label for outcome in outcomes)
    table = Table(
        Column("lesson", no_wrap=True),
        *([Column("parameters", overflow="fold")] if swept else []),
        "device",
        "checks",
        Column("margin used", no_wrap=True),
        "time",
        Column("status", no_wrap=True),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for outcome in outcomes:
        table.add_row(
            outcome.run.lesson.name,
            *([outcome.run.label] if swept else []),
            outcome.run.device,
            count(outcome),
            _margin(outcome),
            _time(outcome),
            Text(outcome.status, COLOURS.get(outcome.status, "red")),
        )
    return table


def _agreement(matrix: Matrix) -> Table:
    """The runs in rows and columns; a column is headed by the values of what varies."""
    heads = ["\n".join(map(str, head)) for head in (matrix.names, *matrix.runs[:-1])]
    table = Table(*(Column(head, no_wrap=True) for head in heads), box=box.SIMPLE_HEAD)
    for label, cells in matrix.rows:
        table.add_row(label, *cells)
    return table


def utilisation(uses: Sequence[Use]) -> str:
    """How much of the time the slots had a run, in words."""
    shares = [use.share for use in uses]
    least = f", the least used {min(shares):.0%}" if len(uses) > 1 else ""
    return f"{len(uses)} at once, busy {fmean(shares):.0%} of {uses[0].of_s:.1f} s{least}"


def agreement_of(matrix: Matrix) -> str:
    """How far the runs agree, in words: the largest difference, its check, and its two runs."""
    worst, *runs = matrix.worst
    most = f"differ by {worst} at most, in {worst.check}: {' and '.join(runs)}"
    most = most if worst.size else "are equal where they are compared"
    compared = f"{matrix.compared} of {len(matrix.lesson.checks)} checks compared"
    legend = f"= is equal to the bit, – nothing to compare{EPSILON.get(matrix.dtype, '')}"
    return f"{matrix.lesson.name}, {matrix.dtype}: the runs {most}\n  {compared}; {legend}"


@dataclass(frozen=True)
class Fault:
    """What is wrong, at a line of a lesson; line 0 where no cell is at fault."""

    title: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else ""
        return f"{self.title}: {place}{self.text}"


def faults(outcome: Outcome) -> Iterator[Fault]:
    """What is wrong with an outcome: first what ended it, then checks."""
    bad = [result for result in outcome.results if not result.green]
    if fault := fault_of_run(outcome):
        yield fault
        bad = [result for result in bad if result.status != "missing"]
    for result in bad:
        yield fault_of_check(outcome, result)


def fault_of_run(outcome: Outcome) -> Fault | None:
    """What is wrong with a run beside its checks; None where nothing is."""
    if outcome.green or outcome.needs_gpus:
        return None
    if outcome.status == "differs" and not all(result.green for result in outcome.results):
        return None
    run = outcome.run
    missing = [result.check.name for result in outcome.results if result.status == "missing"]
    lines = [outcome.reason]
    lines += [f"  log: {outcome.attempt / LOG}"] if outcome.attempt else []
    lines += [f"{run.name}: never reported: {', '.join(missing)}"] if missing else []
    line = run.lesson.line(outcome.at) if outcome.at else 0
    return _at(run, line, outcome.status, lines)


def fault_of_check(outcome: Outcome, result: Result) -> Fault:
    """What is wrong with a check that is not green."""
    facts = {
        "derivation": result.derivation,
        "shown": result.shown,
        "expected": result.expected,
        "tolerance": result.tolerance,
    }
    lines = [f"check '{result.check.name}' {result.message}"]
    lines += [f"  {label:<12}{fact}" for label, fact in facts.items() if fact]
    return _at(outcome.run, result.check.line, result.status, lines)


def _at(run: Run, line: int, status: str, lines: Sequence[str]) -> Fault:
    return Fault(plain(f"{run.name} {status}"), file(run), line, plain("\n".join(lines)))


def file(run: Run) -> str:
    """The lesson's script as people and CI systems read it: `lessons/03_autograd.py`."""
    return f"{run.lesson.path.parent.name}/{run.lesson.path.name}"


def count(outcome: Outcome) -> str:
    """How many of a lesson's checks are green: `26/31`, or `none`."""
    total = len(outcome.run.lesson.checks)
    good = sum(result.green for result in outcome.results)
    return f"{good}/{total}" if total else "none"


def _time(outcome: Outcome) -> str:
    """How long it took, or on what day."""
    day = outcome.date.partition(" ")[0]
    return day if outcome.status == "unchanged" else f"{outcome.seconds:.1f} s"


def _margin(outcome: Outcome) -> str:
    used = [r.margin for r in outcome.results if r.margin and r.green]
    return f"{max(used):.0%}" if used else "-"
