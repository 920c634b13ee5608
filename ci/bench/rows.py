"""What `invoke bench` measures: its rows, who takes part in each, and what we want to see there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ci.bench.contenders import (
    CHECKED,
    FIRST_40,
    HANDOUT,
    HANDOUTS,
    LATEX,
    LIST,
    MEMORY,
    NBCONVERT,
    NBMAKE,
    OURS,
    PAPERMILL,
    POOL,
    PROCESS,
    SCRIPTS,
    UNCHANGED,
    WEBPDF,
    Contender,
)

SMALL = "06"  # the training lesson of the bench itself, which is not of the course


@dataclass(frozen=True)
class Row:
    """Contenders for one workload: `lessons` as `invoke run --lessons` takes them, with `settings`.

    The first contender is the one that others are compared with. Those `left_out`, each with a
    reason, take part only where they are asked for. A contender is ended after `deadline_s`.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    lessons: str = ""
    settings: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[Contender, str]] = field(default_factory=dict)
    defaults: bool = False
    deadline_s: float = 900.0
    repeats: int = 1


@dataclass(frozen=True)
class Target:
    """What a figure of `row` is to be: `of` contender `ours`, at most `most`; the `aim` is less.

    `how` says whether it is divided by the best of `against`, or less that, or itself.
    """

    row: str
    title: str
    of: str
    ours: str
    most: float
    aim: float
    against: tuple[str, ...] = ()
    how: str = "ratio"
    unit: str = ""


def seeds(number: int) -> tuple[str, ...]:
    """The setting of a sweep over so many seeds."""
    return (f"seed={','.join(map(str, range(number)))}",)


def _left_out(*pairs: tuple[Contender, str]) -> Mapping[str, tuple[Contender, str]]:
    return {contender.name: (contender, why) for contender, why in pairs}


MINUTES = "minutes a round, for what the row `lessons` shows already"
LONG = _left_out((PAPERMILL, MINUTES), (NBCONVERT, MINUTES), (SCRIPTS, MINUTES))
LONGER = {**LONG, **_left_out((NBMAKE, MINUTES))}
TEN_MINUTES = "ten minutes a round and more, for what the row `40` shows already"
LONGEST = _left_out(
    *((contender, TEN_MINUTES) for contender in (PAPERMILL, POOL, NBCONVERT, NBMAKE, SCRIPTS))
)

ROWS = (
    Row(
        "lessons",
        "the whole course",
        (OURS, CHECKED, PAPERMILL, POOL, NBCONVERT, NBMAKE, SCRIPTS, PROCESS),
    ),
    Row(
        "40",
        "40 variants of a small training lesson",
        (OURS, POOL, NBMAKE, PROCESS),
        SMALL,
        seeds(40),
        LONG,
    ),
    Row("03", "40 variants of lesson 03", (OURS, POOL, PROCESS), "03", seeds(40), LONGER),
    Row(
        "200",
        "200 variants of a small training lesson",
        (OURS, FIRST_40, PROCESS),
        SMALL,
        seeds(200),
        LONGEST,
    ),
    Row("unchanged", "the whole course, unchanged", (UNCHANGED, LIST), repeats=3),
    Row(
        "handout",
        "one executed lesson in both formats",
        (HANDOUT, HANDOUTS, WEBPDF, LATEX),
        "03",
    ),
    Row("memory", "private memory of a warm kernel", (MEMORY,), SMALL),
    Row(
        "defaults",
        "two lessons, with everybody's own threads",
        (OURS, POOL, NBMAKE, PROCESS),
        "02,03",
        defaults=True,
        deadline_s=180.0,
    ),
)

PEERS = ("papermill", "pool", "nbconvert", "nbmake")
TARGETS = (
    Target(
        "lessons",
        "executed and checked, wall, to the best peer's",
        *("wall_s", "checked", 0.60, 0.45, PEERS),
    ),
    Target(
        "40",
        f"40 variants, wall, to {POOL.title}",
        *("wall_s", "ours", 0.15, 0.10, ("pool",)),
    ),
    Target(
        "40",
        "40 variants, CPU, to one process",
        *("cpu_s", "ours", 2.5, 2.0, ("process",)),
    ),
    Target(
        "200",
        "200 variants, wall of each, to that of 40",
        *("run_s", "ours", 1.05, 1.05, ("ours at 40",)),
    ),
    Target(
        "memory",
        "private memory of a warm kernel, after its imports",
        *("private_mb", "kernel", 60.0, 60.0),
        how="value",
        unit=" MB",
    ),
    Target(
        "unchanged",
        "unchanged course, wall, beyond invoke --list",
        *("wall_s", "unchanged", 0.5, 0.2, ("list",)),
        how="difference",
        unit=" s",
    ),
)
