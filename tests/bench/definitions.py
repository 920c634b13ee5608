"""The contenders, rows and targets that bench.toml lists."""

import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Contender:
    """One way to execute notebooks, or to make handouts of them."""

    name: str
    kind: str  # pipeline, competitor or lower bound
    title: str
    script: str  # a shell script with {placeholders}: see `Workload.script`
    results: str = ""  # the executed notebooks that it leaves; {} is the name of one
    needs: Sequence[str] = ()  # modules and programs
    first: int | None = None  # how many runs of the workload it executes, if not all

    @property
    def missing(self) -> str:
        """What it needs and this machine does not have."""
        return ", ".join(n for n in self.needs if not (find_spec(n) or shutil.which(n)))


@dataclass(frozen=True)
class Row:
    """Contenders for one workload; the first is the reference that others are compared with."""

    name: str
    title: str
    contenders: Sequence[Contender]
    lessons: str = ""  # as for `invoke run`
    seeds: int = 0  # a sweep with so many runs of each lesson; 0 for no sweep
    left_out: Sequence[Contender] = ()  # take part only with `--all`
    because: str = ""
    before: str = ""  # a script that is not timed; the contenders then share one folder
    own_threads: bool = False  # each contender chooses its number of threads
    deadline_s: float = 900.0
    repeats: int = 1


@dataclass(frozen=True)
class Target:
    """A bound for a figure of a contender, or for its ratio to the best contender of `against`."""

    row: str
    figure: str  # a field of Sample
    contender: str
    limit: float
    aim: float
    against: Sequence[str] = ()
    difference: bool = False  # in place of the ratio


def _row(name: str, fields: dict[str, Any]) -> Row:
    names = {key: fields.get(key, ()) for key in ("contenders", "left_out")}
    return Row(name, **fields | {k: [CONTENDERS[n] for n in v] for k, v in names.items()})


_TABLES = tomllib.loads(Path(__file__).with_name("bench.toml").read_text(encoding="utf-8"))
CONTENDERS = {name: Contender(name, **fields) for name, fields in _TABLES["contenders"].items()}
ROWS = {name: _row(name, fields) for name, fields in _TABLES["rows"].items()}
TARGETS = [Target(**fields) for fields in _TABLES["targets"]]
