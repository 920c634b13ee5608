"""What `invoke bench` measures, as bench.toml lists it, and the report: tables and verdicts."""

import json
import shutil
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from itertools import product
from math import nan
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ci.machine import atomic
from ci.plan import keys
from tests.bench.stopwatch import Sample


@dataclass(frozen=True)
class Contender:
    """One way to execute notebooks, or to make handouts of them."""

    name: str
    title: str
    script: str  # a shell script: `environment` lists its variables
    results: str = ""  # the executed notebooks that it leaves; {} is the name of one
    needs: Sequence[str] = ()  # programs
    first: int | None = None  # how many runs of the workload it executes, if not all

    @property
    def missing(self) -> str:
        """The programs that it needs and this machine does not have."""
        return ", ".join(name for name in self.needs if not shutil.which(name))


@dataclass(frozen=True)
class Row:
    """Contenders for one workload; the first is the reference that others are compared with."""

    name: str
    title: str
    contenders: Sequence[Contender]
    lessons: str = ""  # as for `invoke run`
    seeds: int = 0  # a sweep with so many runs of each lesson; 0 for no sweep
    before: str = ""  # a script that is not timed; the contenders then share one folder
    deadline_s: float = 900.0  # for each contender
    named: bool = False  # measure it only if `--rows` names it


@dataclass(frozen=True)
class Target:
    """A bound for a figure of a contender, or for its ratio to the best contender of `against`."""

    title: str
    row: str
    figure: str  # a field of Sample
    contender: str
    limit: float
    aim: float
    against: Sequence[str] = ()
    difference: bool = False  # in place of the ratio


_TABLES = tomllib.loads(Path(__file__).with_name("bench.toml").read_text(encoding="utf-8"))
CONTENDERS = {name: Contender(name, **fields) for name, fields in _TABLES["contenders"].items()}
ROWS = {
    name: Row(name, contenders=[CONTENDERS[each] for each in fields.pop("contenders")], **fields)
    for name, fields in _TABLES["rows"].items()
}
TARGETS = [Target(**fields) for fields in _TABLES["targets"]]


@dataclass
class Result:
    """The samples of a row."""

    row: Row
    rounds: list[dict[str, Sample]] = field(default_factory=list)  # by contender
    faults: dict[str, str] = field(default_factory=dict)  # how it failed, or what it showed

    def figures(self, name: str, figure: str) -> list[float]:
        """A field of the samples of one contender, round by round; empty if it is at fault."""
        rounds = [] if name in self.faults else self.rounds
        return [getattr(samples[name], figure) for samples in rounds if name in samples]

    def ratios(self, name: str, figure: str) -> list[float]:
        """A contender's figure divided by the reference's figure in the same round."""
        reference = self.figures(self.row.contenders[0].name, figure)
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
    if not own or result.faults.keys() & {*names}:
        return [], "not measured"
    median = statistics.median(own)
    met = "aim reached" if median <= target.aim < target.limit else "met"
    return own, met if median <= target.limit else "missed"


def show(result: Result, console: Console) -> None:
    """Print the table of a row, with the reason for each contender that has no figures."""
    ratio = f"/ {result.row.contenders[0].name}"  # in the same round
    heads = ("", "", "wall s", ratio, "CPU s", ratio, "peak MB")
    table = Table(*heads, title=f"{result.row.name}: {result.row.title}")
    for contender in result.row.contenders:
        name, figures = contender.name, partial(result.figures, contender.name)
        if walls := figures("wall_s"):
            times = spread(walls), spread(result.ratios(name, "wall_s"))
            cpu = spread(figures("cpu_s")), spread(result.ratios(name, "cpu_s"))
            table.add_row(name, contender.title, *times, *cpu, f"{max(figures('peak_mb')):.0f}")
        else:
            table.add_row(name, result.faults.get(name, f"missing here: {contender.missing}"))
    console.print(table)


def spread(numbers: Sequence[float]) -> str:
    """The median, with the smallest and the largest number if they differ; nan without numbers."""
    low, median, high = (f"{f(numbers or [nan]):.2f}" for f in (min, statistics.median, max))
    return median if low == high else f"{median} ({low}–{high})"


def conclude(results: Sequence[Result], console: Console, folder: Path) -> None:
    """Print the verdicts on the targets; write bench.json, and their table as bench.md."""
    heads = ("target", "at most", "aim", "measured", "verdict")
    rows, verdicts = [], []
    for target, result in product(TARGETS, results):
        if target.row == result.row.name:
            values, verdict = judge(target, result)
            verdicts.append(asdict(target) | {"values": values, "verdict": verdict})
            bounds = str(target.limit), str(target.aim)
            rows.append((target.title, *bounds, spread(values), verdict))
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    record = {"machine": keys.machine()[:3], "rows": [*map(asdict, results)], "targets": verdicts}
    record["versions"] = {each.name: each.version for each in metadata.distributions()}
    atomic.write(folder / "bench.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    lines = [f"| {' | '.join(cells)} |\n" for cells in (heads, ["---"] * len(heads), *rows)]
    atomic.write(folder / "bench.md", "".join(lines))
