"""What `invoke bench` says and leaves: a table for each row, the targets, `bench.json`, a plot."""

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Column, Table

from ci import atomic
from ci.bench.bench import Judged, Measured, Sample
from ci.plan import keys

WIDTH = 120  # the tables need it, in a log as well
VERSIONS = ("torch", "papermill", "nbclient", "nbconvert", "nbmake", "ipykernel", "pytest-xdist")
INK, COLOURS = "#7d838c", {"ours": "#2f81f7", "peer": "#8b949e", "floor": "#b08800"}
DRAWN = ("lessons", "40", "03")
SVG: dict[Any, Any] = {"svg.hashsalt": "pytorch-course", "svg.fonttype": "path", "font.size": 9}


def spread(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """The median of rounds, and where they differ the least and the largest."""
    if not values:
        return "-"
    low, median, high = (f"{v:.{digits}f}" for v in (min(values), _median(values), max(values)))
    return f"{median}{unit}" if low == high else f"{median}{unit} ({low}–{high})"


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def wall(samples: Sequence[Sample]) -> str:
    """The wall time in seconds; `> n` where the deadline ended it in any round."""
    if over := [sample.wall_s for sample in samples if sample.over]:
        return f"> {min(over):.0f}"
    return spread([sample.wall_s for sample in samples])


def ratios(measured: Measured, name: str, of: str) -> list[float]:
    """What the row's first contender takes of what this one takes, in each round."""
    first, other = (measured.samples[n] for n in (measured.contenders[0].name, name))
    pairs = zip(first, other, strict=True)
    return [getattr(mine, of) / getattr(theirs, of) for mine, theirs in pairs]


def table(measured: Measured) -> Table:
    """A row's contenders: times, memory, and the first one's share of each."""
    first = measured.contenders[0].name
    words = ("wall s", "CPU s", "peak MB", f"{first} / it: wall", "CPU", "others had")
    right = (Column(word, justify="right") for word in words)
    shown = Table("", *right, box=box.SIMPLE_HEAD)
    for contender in measured.contenders:
        if samples := measured.samples.get(contender.name):
            shown.add_row(
                contender.name,
                wall(samples),
                spread([sample.cpu_s for sample in samples]),
                f"{max(sample.peak_mb for sample in samples):.0f}",
                *(spread(ratios(measured, contender.name, of)) for of in ("wall_s", "cpu_s")),
                f"{max(sample.foreign for sample in samples):.0%}",
            )
    return shown


def show(results: Iterable[Measured], load: Sequence[float]) -> list[Measured]:
    """Show each row as it comes, and the load before; returns the rows."""
    console = _console()
    console.print(f"load before: {_load(load)}")
    return list(_each(results, console))


def _each(results: Iterable[Measured], console: Console) -> Iterable[Measured]:
    for measured in results:
        console.print(f"\n{measured.row.name}: {measured.row.title}")
        for contender in measured.contenders:
            console.print(f"  {contender.name:<11}{contender.title}")
        console.print(table(measured))
        for name, why in (measured.absent | measured.faults).items():
            console.print(f"{name}: {why}")
        for kernel in measured.samples.get("kernel", ()):
            console.print(
                f"private: {kernel.private_mb:.1f} MB after its imports, "
                f"{kernel.private_at_end_mb:.1f} MB at the end; added: {kernel.added_mb:.1f} MB"
            )
        yield measured


def conclude(judged: Sequence[Judged], load: Sequence[float]) -> None:
    """Show the targets, met or not, and the load after."""
    shown = Table("target", "at most", "aim", "measured", "", box=box.SIMPLE_HEAD)
    for one in judged:
        target = one.target
        shown.add_row(
            *(target.title, f"{target.most:g}{target.unit}", f"{target.aim:g}{target.unit}"),
            spread(one.values, target.unit),
            f"{one.verdict}, but disturbed" if one.disturbed else one.verdict,
        )
    console = _console()
    console.print(shown)
    console.print(f"load after: {_load(load)}")


def _load(load: Sequence[float]) -> str:
    return " ".join(f"{average:.2f}" for average in load)


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    return console


def record(
    results: Sequence[Measured], judged: Sequence[Judged], loads: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": {"cores": psutil.cpu_count(), "processor": keys.machine()[:3]},
        "versions": {"Python": platform.python_version(), **dict(_versions())},
        "load": [list(load) for load in loads],
        "rows": [
            {
                "name": measured.row.name,
                "title": measured.row.title,
                "faults": measured.faults,
                "absent": measured.absent,
                "contenders": [
                    {
                        "name": contender.name,
                        "kind": contender.kind,
                        "title": contender.title,
                        "rounds": [asdict(s) for s in measured.samples.get(contender.name, ())],
                    }
                    for contender in measured.contenders
                ],
            }
            for measured in results
        ],
        "targets": [
            {
                **asdict(one.target),
                **{"values": one.values, "verdict": one.verdict, "disturbed": one.disturbed},
            }
            for one in judged
        ],
    }


def _versions() -> Iterable[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def write(record: dict[str, Any], results: Sequence[Measured], folder: Path) -> list[Path]:
    """Write `bench.json` into `folder`, and `bench.svg` where a row was compared with others."""
    data, plot = folder / "bench.json", folder / "bench.svg"
    atomic.write(data, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    drawn = [m for m in results if m.row.name in DRAWN and len(m.samples) > 1]
    if not drawn:
        return [data]
    draw(drawn, plot)
    return [data, plot]


def draw(results: Sequence[Measured], path: Path) -> None:
    """Bars: the wall time of each contender in multiples of ours, a panel for each row."""
    import matplotlib
    from matplotlib.figure import Figure

    heights = [len(measured.samples) for measured in results]
    with matplotlib.rc_context(SVG):
        figure = Figure(figsize=(7.2, 0.55 * len(results) + 0.26 * sum(heights)))
        figure.set_layout_engine("constrained")
        figure.suptitle("wall time, in multiples of ours", color=INK, fontsize=9)
        grid = figure.subplots(len(results), squeeze=False, height_ratios=heights)[:, 0]
        for axes, measured in zip(grid, results, strict=True):
            _panel(axes, measured)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _panel(axes: Any, measured: Measured) -> None:
    """One row. Its ink is grey, which can be read on a light page and on a dark one."""
    drawn = [c for c in measured.contenders if c.name in measured.samples][::-1]
    times = [_median([1 / r for r in ratios(measured, c.name, "wall_s")]) for c in drawn]
    bars = axes.barh([c.title for c in drawn], times, color=[COLOURS[c.kind] for c in drawn])
    labels = [_label(c.name, n, measured) for c, n in zip(drawn, times, strict=True)]
    axes.bar_label(bars, labels, padding=4, color=INK)
    axes.set_title(measured.row.title, color=INK, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlim(0, 1.55 * max(times))  # room for the labels
    axes.set_xticks([])
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)


def _label(name: str, times: float, measured: Measured) -> str:
    samples = measured.samples[name]
    median = _median([sample.wall_s for sample in samples])
    over = "> " if any(sample.over for sample in samples) else ""
    return f"{over}{times:.2f} ({over}{median:.1f} s)"
