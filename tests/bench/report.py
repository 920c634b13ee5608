"""The results of `invoke bench`: ratios and verdicts, tables, bench.json and bench.svg."""

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.table import Column, Table

from ci import atomic
from ci.plan import keys
from tests.bench.definitions import TARGETS, Contender, Row, Target
from tests.bench.stopwatch import Sample

DISTURBED = 0.2  # a verdict is in doubt if others used more than this share of the machine
WIDTH, BAR_WIDTH = 140, 12  # columns
COLOURS = {"pipeline": "dodger_blue1", "competitor": "grey58", "lower bound": "dark_goldenrod"}
PACKAGES = {"torch", "papermill", "nbclient", "nbconvert", "nbmake", "ipykernel", "pytest-xdist"}
FONTS = re.compile(r"@font-face {.*?}\s*", re.DOTALL)  # Rich would load them from the network


@dataclass
class Result:
    """What was measured of a row."""

    row: Row
    contenders: Sequence[Contender]  # the first is the reference
    rounds: list[dict[str, Sample]] = field(default_factory=list)  # by contender
    absent: dict[str, str] = field(default_factory=dict)  # why a contender did not take part
    faults: dict[str, str] = field(default_factory=dict)  # how it failed, or what it showed

    def figures(self, name: str, figure: str) -> list[float]:
        """A field of the samples of one contender, round by round; empty if it is at fault."""
        rounds = [] if name in self.faults else self.rounds
        return [getattr(samples[name], figure) for samples in rounds if name in samples]

    def ratios(self, name: str, figure: str) -> list[float]:
        """A contender's figure divided by that of the reference in the same round."""
        reference = self.figures(self.contenders[0].name, figure)
        return [a / b for a, b in zip(self.figures(name, figure), reference, strict=True)]


def judge(target: Target, result: Result) -> tuple[list[float], str]:
    """The values that a target bounds, one per round, and the verdict on their median.

    Nothing is measured if one of the contenders failed or was late, because it could be the best.
    """
    names = [target.contender, *target.against]
    own, *others = [result.figures(name, target.figure) for name in names]
    if target.against:
        best = [min(figures) for figures in zip(*filter(None, others), strict=True)]
        own = [a - b if target.difference else a / b for a, b in zip(own, best, strict=False)]
    late = any(any(result.figures(name, "timed_out")) for name in names)
    if not own or late or result.faults.keys() & {*names}:
        return [], "not measured"
    median = statistics.median(own)
    met = "aim reached" if median <= target.aim < target.limit else "met"
    foreign = max(share for name in names for share in result.figures(name, "foreign"))
    disturbed = ", but disturbed" if foreign > DISTURBED else ""
    return own, (met if median <= target.limit else "missed") + disturbed


def console() -> Console:
    """A console that records what it prints, for bench.svg."""
    return Console(record=True, width=WIDTH, highlight=False, markup=False, emoji=False)


def show(result: Result, console: Console) -> None:
    """Print the table of a row, and why contenders are not in it.

    `others` is the largest share of the machine that other processes used.
    """
    console.print(f"\n{result.row.name}: {result.row.title}", style="bold")
    reference = result.contenders[0].name
    heads = ("wall s", f"/ {reference}", "CPU s", f"/ {reference}", "peak MB", "others")
    numbers = (Column(head, justify="right", no_wrap=True) for head in heads)
    table = Table("", Column(width=BAR_WIDTH), *numbers, box=box.SIMPLE_HEAD)
    walls = {c.name: result.figures(c.name, "wall_s") for c in result.contenders}
    longest = max(max(found, default=0.0) for found in walls.values())
    for contender in result.contenders:
        name, style = contender.name, COLOURS[contender.kind]
        console.print(f"  {name:<16}{contender.title}", style=style)
        if wall := walls[name]:
            table.add_row(
                name,
                Bar(longest, 0, statistics.median(wall), width=BAR_WIDTH, color=style),
                ("> " if any(result.figures(name, "timed_out")) else "") + spread(wall),
                spread(result.ratios(name, "wall_s")),
                spread(result.figures(name, "cpu_s")),
                spread(result.ratios(name, "cpu_s")),
                f"{max(result.figures(name, 'peak_mb')):.0f}",
                f"{max(result.figures(name, 'foreign')):.0%}",
            )
    console.print(table)
    for name, why in (result.absent | result.faults).items():
        console.print(f"{name}: {why}")


def spread(numbers: Sequence[float]) -> str:
    """The median, with the smallest and the largest number if they differ."""
    if not numbers:
        return "-"
    low, median, high = (f"{f(numbers):.2f}" for f in (min, statistics.median, max))
    return median if low == high else f"{median} ({low}–{high})"


def conclude(results: Sequence[Result], console: Console, folder: Path) -> list[Path]:
    """Print the verdicts on the targets; write bench.json, with all figures, and bench.svg, with
    all that was printed."""
    heads = ("row", "figure", "of", "against the best of", "at most", "aim", "measured", "")
    table, targets = Table(*heads, box=box.SIMPLE_HEAD), []
    for result in results:
        for target in [target for target in TARGETS if target.row == result.row.name]:
            values, verdict = judge(target, result)
            targets.append(asdict(target) | {"values": values, "verdict": verdict})
            sides = target.row, target.figure, target.contender, ", ".join(target.against)
            bounds = f"{target.limit:g}", f"{target.aim:g}"
            table.add_row(*sides, *bounds, spread(values), verdict)
    if targets:
        console.print(table)
    versions = {d.name: d.version for d in metadata.distributions() if d.name in PACKAGES}
    facts = {"machine": keys.machine()[:3], "load": os.getloadavg(), "versions": versions}
    record = facts | {"rows": [asdict(result) for result in results], "targets": targets}
    data, picture = folder / "bench.json", folder / "bench.svg"
    atomic.write(data, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    atomic.write(picture, FONTS.sub("", console.export_svg(title="invoke bench")))
    return [data, picture]
