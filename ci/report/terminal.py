"""The outcomes for people: the terminal."""

from collections.abc import Callable, Sequence
from sys import maxsize

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from ci.execute.events import CellStarted, Event, Started, Waiting
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome, Status
from ci.plan.planner import Run
from ci.report.console import PatientConsole
from ci.report.faults import faults
from ci.report.lines import agreement_text, check_count, outcome_text, utilization_text
from ci.report.progress import Heartbeat, Progress, lines
from ci.report.utilization import Utilization

COLOURS = {
    Status.VERIFIED.value: "green",
    Status.UNCHANGED.value: "green",
    Status.UNCHECKED.value: "yellow",
    "running": "cyan",
    "waiting": "dim",
}
IN_PROGRESS = ("running", "waiting")
HEAD = 3  # lines of the live table beside its rows


class Terminal:
    """The live table of a plan; plain lines where there is no terminal. A context.

    `expected_s` is how long a run took before, if it is known. A quiet terminal prints faults
    alone, a verbose one each cell too.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        console: Console | None = None,
        *,
        expected_s: Callable[[Run], float | None] = lambda run: None,
        quiet: bool = False,
        verbose: bool = False,
    ) -> None:
        self.console = console or PatientConsole()
        self.quiet, self.verbose = quiet, verbose
        self._expected_s = expected_s
        self._rows = {id(run): (run, "waiting", "") for run in runs}
        self._running: dict[int, Progress] = {}
        self._is_live = self.console.is_terminal and not quiet
        self._live = Live(
            get_renderable=self._live_table,
            console=self.console,
            transient=True,
            refresh_per_second=8,
            auto_refresh=self._is_live,
        )
        self._heartbeat = Heartbeat(self._print_progress)

    def __enter__(self) -> "Terminal":
        if self._is_live:
            self._live.start()
        elif not self.quiet:
            self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.stop()
        elif not self.quiet:
            self._heartbeat.stop()

    def print(self, line: object) -> None:
        """Print a line that stays, above the table."""
        if not self.quiet:
            self.console.print(str(line), markup=False, soft_wrap=True)

    def _print_progress(self) -> None:
        for line in lines(self._running):
            self.print(line)

    def on_event(self, event: Event) -> None:
        """Show how far a run is."""
        if isinstance(event, Waiting):
            self._show_waiting(event)
        if isinstance(event, Started | CellStarted):
            self._show_progress(event)

    def _show_waiting(self, event: Waiting) -> None:
        """Say once why a run waits, even if several jobs wait for it."""
        reason = event.reason or "for GPUs that another run on this machine uses"
        row = event.run, "waiting", reason
        self._running.pop(id(event.run), None)  # on a node that is lost
        if self._rows.get(id(event.run)) != row:
            self._rows[id(event.run)] = row
            self.print(f"{event.run.name} waits {reason}")

    def _show_progress(self, event: Started | CellStarted) -> None:
        run = event.run
        known = self._running.setdefault(id(run), Progress(run, self._expected_s(run)))
        known.on_event(event)
        self._rows[id(run)] = (run, "running", "")
        if isinstance(event, Started) and not self._is_live:
            self.print(known.start)
        if isinstance(event, CellStarted) and self.verbose:
            self.print(known.line)

    def on_outcome(self, outcome: Outcome) -> None:
        """Show what became of a run."""
        self._running.pop(id(outcome.run), None)
        self._rows[id(outcome.run)] = (outcome.run, outcome.status_text, check_count(outcome))
        if not self._is_live:
            self.print(outcome_text(outcome))

    def finish(
        self,
        outcomes: Sequence[Outcome],
        matrices: Sequence[Matrix] = (),
        utilization: Sequence[Utilization] = (),
    ) -> None:
        """Print all faults, the table of outcomes, the utilization, and how the runs agree."""
        for outcome in outcomes:
            for fault in faults(outcome):
                self.console.print(str(fault), markup=False, soft_wrap=True)
        if self.quiet:
            return
        self.console.print(_final_table(outcomes))
        kernels = {outcome.environment.get("kernel", "forked") for outcome in outcomes}
        for why in sorted(kernels - {"forked"}):
            self.print(f"each run imported torch itself: its kernel was {why}\n")
        if sum(slot.runs for slot in utilization) > 1:
            self.print(f"{utilization_text(utilization)}\n")
        for matrix in matrices:
            table, wide = _agreement_table(matrix), self.console.options.update(max_width=maxsize)
            if self.console.measure(table, options=wide).minimum <= self.console.width:
                self.console.print(table)
            self.print(f"{agreement_text(matrix)}\n")

    def _live_table(self) -> Table:
        table = Table("lesson", "parameters", "device", "status", "time", "progress", box=None)
        rows = list(self._rows.values())
        if len(rows) > self.console.height - HEAD:  # of a sweep, what is in progress comes first
            done = sum(status not in IN_PROGRESS for _, status, _ in rows)
            table.caption = f"{done} of {len(rows)} runs are done"
            rows.sort(key=lambda row: IN_PROGRESS.index(row[1]) if row[1] in IN_PROGRESS else 9)
            del rows[max(1, self.console.height - HEAD) :]
        for run, status, text in rows:
            known = self._running.get(id(run))
            time, place = (known.elapsed, known.place) if known else ("", text)
            table.add_row(run.lesson.name, run.label, run.device, _coloured(status), time, place)
        return table


def _coloured(status: str) -> Text:
    return Text(status, COLOURS.get(status, "red"))


def _final_table(outcomes: Sequence[Outcome]) -> Table:
    is_sweep = any(outcome.run.label for outcome in outcomes)
    is_incomplete = any(outcome.not_compared for outcome in outcomes)
    table = Table(
        Column("lesson", no_wrap=True),
        *([Column("parameters", overflow="fold")] if is_sweep else []),
        Column("device", no_wrap=True),
        Column("checks", no_wrap=True),
        *(["not compared"] if is_incomplete else []),
        "margin used",
        Column("time", no_wrap=True),
        Column("status", no_wrap=True),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for outcome in outcomes:
        table.add_row(
            outcome.run.lesson.name,
            *([outcome.run.label] if is_sweep else []),
            outcome.run.device,
            check_count(outcome),
            *([str(outcome.not_compared or "-")] if is_incomplete else []),
            _margin(outcome),
            _time(outcome),
            _coloured(outcome.status_text),
        )
    return table


def _agreement_table(matrix: Matrix) -> Table:
    """One line per run; a column is headed by the values of the parameters that vary."""
    heads = ["\n".join(map(str, head)) for head in (matrix.names, *matrix.runs[:-1])]
    table = Table(*(Column(head, no_wrap=True) for head in heads), box=box.SIMPLE_HEAD)
    for label, cells in matrix.rows:
        table.add_row(label, *cells)
    return table


def _time(outcome: Outcome) -> str:
    """How long the run took, or on which day an unchanged one was executed."""
    day = outcome.date.partition(" ")[0]
    return day if outcome.status == Status.UNCHANGED else f"{outcome.seconds:.1f} s"


def _margin(outcome: Outcome) -> str:
    used = [result.margin for result in outcome.results if result.margin and result.green]
    return f"{max(used):.0%}" if used else "-"
