"""Lessons x parameters x devices to runs."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ci.errors import UsageError, suggest
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import LONGEST_S, Value
from ci.plan import gpus, memory
from ci.plan.gpus import Gpu

TIMEOUT_S = 600.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """One execution: a lesson, the values of its parameters, the GPUs it leased, its threads."""

    lesson: Lesson
    parameters: Mapping[str, Value]
    chosen: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    gpus_needed: int = 0
    threads: int = 1
    timeout_s: float = TIMEOUT_S

    @property
    def key(self) -> str:
        """The same for the same run of a lesson: parameters, number of GPUs, threads."""
        identity = [dict(self.parameters), len(self.gpus), self.threads]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The parameters that were set for it, as one would type them; empty for the defaults."""
        return " ".join(f"{name}={self.parameters[name]}" for name in self.chosen)

    @property
    def name(self) -> str:
        """Lesson and label: what a report calls it."""
        return f"{self.lesson.name} {self.label}".rstrip()

    @property
    def device(self) -> str:
        """Where it runs, for a person: the GPUs' names, or cpu."""
        names = [gpu.name for gpu in self.gpus]
        return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0] if names else "cpu"

    @property
    def environment(self) -> dict[str, str]:
        """Its threads; those that wait sleep, or two lessons on two cores crawl."""
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        return {**threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}

    @property
    def lacks_gpus(self) -> bool:
        """Whether it can't be run here; its status is then `needs N GPUs`."""
        return len(self.gpus) < self.gpus_needed

    @property
    def is_default(self) -> bool:
        """Whether it is the lesson as its author wrote it, the one that makes handouts."""
        return not self.chosen


def runs(
    lessons: Sequence[Lesson],
    settings: Iterable[str],
    granted: Sequence[Gpu],
    *,
    timeout_s: float | None = None,
    slots: int = 1,
) -> list[Run]:
    """The runs of `lessons`, with `settings` such as `size=2,4` multiplied into a sweep.

    `granted` are the GPUs to lease from; `slots` is how many runs go on at once, and fixes the
    threads of each. Raises UsageError for a setting that no lesson knows.
    """
    values = _values(lessons, settings)
    threads = max(1, (os.cpu_count() or 1) // slots)
    return [
        _run(lesson, dict(zip(mine, combination, strict=True)), granted, threads, timeout_s)
        for lesson in lessons
        for mine in [{name: v for name, v in values.items() if name in lesson.parameters}]
        for combination in itertools.product(*(_parsed(lesson, n, v) for n, v in mine.items()))
    ]


def count_slots(jobs: str, granted: Sequence[Gpu]) -> int:
    """How many runs go on at once: `--jobs`; or one a GPU, else one a core, if memory allows."""
    if jobs:
        return int(_positive(jobs, "--jobs", whole=True))
    cores = os.cpu_count() or 1
    return max(1, min(len(granted) or cores, cores, memory.total() // memory.RUN_BYTES))


def parse_timeout(timeout: str) -> float | None:
    """The value of `--timeout`, None where it was not given."""
    return _positive(timeout, "--timeout") if timeout else None


def _positive(text: str, option: str, *, whole: bool = False) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = 0
    if not (0 < number <= LONGEST_S):
        kind = "a whole number" if whole else "a number of seconds"
        raise UsageError(f"{option} {text}: wants {kind} from 1 to {LONGEST_S:.0f}")
    return number


def _run(
    lesson: Lesson,
    chosen: Mapping[str, Value],
    granted: Sequence[Gpu],
    threads: int,
    timeout_s: float | None,
) -> Run:
    leased = () if str(chosen.get("device", "")) == "cpu" else gpus.lease(lesson, granted)
    needed = lesson.min_gpus
    if leased and "world_size" in chosen:
        needed = max(needed, int(chosen["world_size"]))
    filled = {name: v for name, v in _filled(leased).items() if name in lesson.parameters}
    return Run(
        lesson=lesson,
        parameters={**lesson.defaults, **filled, **chosen},
        chosen=tuple(chosen),
        gpus=leased,
        gpus_needed=needed,
        threads=threads,
        timeout_s=timeout_s or lesson.timeout_s or TIMEOUT_S,
    )


def _filled(leased: Sequence[Gpu]) -> dict[str, Value]:
    if not leased:
        return {}
    return {"device": "cuda", "world_size": len(leased), "gpus": len(leased)}


def _values(lessons: Sequence[Lesson], settings: Iterable[str]) -> dict[str, list[str]]:
    known = sorted({name for lesson in lessons for name in lesson.parameters})
    values: dict[str, list[str]] = {}
    for setting in settings:
        name, equals, texts = setting.partition("=")
        name = name.strip()
        if not equals or not texts:
            raise UsageError(f"-p {setting}: write it as name=value, or name=value,value")
        if name not in known:
            raise UsageError(
                f"-p {name}: no chosen lesson has this parameter{suggest(name, known)}"
            )
        if name in values:
            raise UsageError(f"-p {name}: given twice; several values go as {name}=1,2")
        values[name] = texts.split(",")
    return values


def _parsed(lesson: Lesson, name: str, texts: list[str]) -> list[Value]:
    parsed = [lesson.parameters[name].parse(text) for text in texts]
    return list(dict.fromkeys(parsed))
