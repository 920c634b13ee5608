"""Earlier executions that are still valid, so that nothing is executed twice.

Each execution that reached its end leaves a record: its keys, its status, and digests of its files.
Records lie beside the attempts and not in them, since a lesson in the lab can write to its attempt.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.lesson.lesson import Lesson
from ci.machine import atomic
from ci.plan import attempts, keys, reasons
from ci.plan.attempts import CHECKS, NOTEBOOK
from ci.plan.keys import Keys
from ci.plan.known_lessons import LESSONS
from ci.plan.planner import Run

RUNS, RECORDS, DETACHED = "runs", "records", "detached"  # folders below build/
VERIFIED = "verified"
JUDGED = (VERIFIED, "differs", "unchecked")  # statuses of an execution that reached its end


@dataclass(frozen=True)
class Previous:
    """An earlier execution of `run` that need not be repeated, since its inputs are the same.

    If `verdict_is_current`, what its verdict and its pages depend on is the same too; otherwise its
    notebook has to be judged again. `facts` is the content of its `checks.json`.
    """

    run: Run
    keys: Keys
    attempt: Path
    verdict_is_current: bool
    facts: Mapping[str, Any]

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.attempt / NOTEBOOK

    @property
    def key(self) -> str:
        """Identifies the inputs of the run's handouts."""
        return keys.digest(self.keys.handout, self.attempt.name)


@dataclass(frozen=True)
class Work:
    """What a plan has to do: nothing for `unchanged` runs, judge again, or execute."""

    unchanged: list[Previous]
    judge: list[Previous]
    execute: list[Run]

    @property
    def lessons(self) -> list[Lesson]:
        """The lessons with something to judge or execute, in the order of the course."""
        runs = [*self.execute, *(previous.run for previous in self.judge)]
        lessons = {run.lesson.name: run.lesson for run in runs}
        return [lessons[name] for name in sorted(lessons)]


class RunCache:
    """The records of executions below `build`; `executor` returns the executor's facts now."""

    def __init__(self, build: Path, executor: Callable[[], Mapping[str, object]]) -> None:
        self._runs, self._records = build / RUNS, build / RECORDS
        self._executor = executor
        self._facts: Mapping[str, object] = {}  # of the executor, when the runs were planned
        self._keys: dict[int, Keys] = {}
        self._seconds: dict[str, float] = {}  # of the last execution of each lesson

    def work(
        self, runs: Sequence[Run], is_published: Callable[[str, str], bool], *, fresh: bool = False
    ) -> Work:
        """What has to be done for `runs`; with `fresh`, all of them are executed.

        `is_published(lesson, key)` says whether these handouts are on the course page. Call it
        before anything starts, since it notes the keys of the runs.
        """
        self._facts = self._executor()
        environment = keys.environment(self._facts)
        self._keys = {id(run): keys.run_keys(run, environment) for run in runs}
        found = {id(run): None if fresh else self._find(run) for run in runs}
        previous = [each for each in found.values() if each]
        runs_of = Counter(run.lesson.name for run in runs)
        unchanged = [
            each
            for each in previous
            if each.verdict_is_current
            and each.run.is_default
            and runs_of[each.run.lesson.name] == 1  # the runs of a sweep are compared
            and is_published(each.run.lesson.name, each.key)
        ]
        return Work(
            unchanged=unchanged,
            judge=[each for each in previous if each not in unchanged],
            execute=[run for run in runs if not found[id(run)]],
        )

    def execution_key(self, run: Run) -> str:
        """Identifies `run` and what its execution depends on, as it was when it was planned."""
        return keys.digest(run.lesson.name, self._keys[id(run)].execution)

    def reason(self, run: Run) -> str:
        """Why `run`, which is to be executed, is not unchanged."""
        for record in map(atomic.read_json, _last_first(self._folder(run).glob("*.json"))):
            if "parts" in record:
                return reasons.reason(run, self._facts, record)
        is_known = (self._records / run.lesson.name).is_dir()
        return f"never executed{' with these parameters, threads and GPUs' if is_known else ''}"

    def _find(self, run: Run) -> Previous | None:
        """The last execution of `run` decides, unless its files are damaged."""
        now = self._keys[id(run)]
        for path in _last_first(self._folder(run).glob("*.json")):
            record = atomic.read_json(path)
            attempt = self._runs / run.lesson.name / run.key / path.stem
            if record.get("execution") != now.execution:
                continue
            is_current = record.get("handout") == now.handout
            status = record.get("status")
            if status not in JUDGED or (is_current and status != VERIFIED):
                return None
            if _intact(attempt, record.get("files", {})):
                return Previous(run, now, attempt, is_current, atomic.read_json(attempt / CHECKS))
        return None

    def seconds(self, run: Run) -> float | None:
        """How long `run` took the last time, or another run of its lesson; None if unknown."""
        if seconds := self._last_seconds(self._folder(run).glob("*.json")):
            return seconds
        lesson = run.lesson.name
        if lesson not in self._seconds:  # once, since a sweep has thousands of records
            found = self._last_seconds((self._records / lesson).glob("*/*.json"))
            if not found:
                return None
            self._seconds[lesson] = found
        return self._seconds[lesson]

    def _last_seconds(self, records: Iterable[Path]) -> float | None:
        return next(filter(None, map(self._recorded_seconds, _last_first(records))), None)

    def _recorded_seconds(self, path: Path) -> float | None:
        record = atomic.read_json(path)
        seconds: float | None = record.get("seconds")
        return seconds if record.get("status") in JUDGED else None

    def keep(
        self, run: Run, attempt: Path, status: str, checks: Mapping[str, Any]
    ) -> tuple[Path, str]:
        """Complete `attempt` with its `checks.json`, record it, and remove the oldest attempts.

        Returns its new path and the key of its handouts, which is empty where an input has changed
        meanwhile: nobody knows which version gave the result, so there is no record.
        """
        atomic.write_json(attempt / CHECKS, checks)
        attempt = attempts.complete(attempt)
        _prune(self._runs / run.lesson.name / run.key, self._folder(run))
        before = self._keys[id(run)]
        facts = self._executor()
        if keys.run_keys(run, keys.environment(facts)) != before:
            return attempt, ""
        record = {
            "execution": before.execution,
            "handout": before.handout,
            "status": status,
            "seconds": checks["seconds"],
            "date": checks["date"],
            "parts": reasons.parts(run, facts),
            "default": all(run.parameters[n] == run.lesson.defaults[n] for n in run.chosen),
            "files": _digests(attempt),
        }
        atomic.write_json(self._folder(run) / f"{attempt.name}.json", record)
        return attempt, keys.digest(before.handout, attempt.name)

    def _folder(self, run: Run) -> Path:
        return self._records / run.lesson.name / run.key


def _last_first(records: Iterable[Path]) -> list[Path]:
    """Records in the order of their attempts' names, which is that of the executions."""
    return sorted(records, key=lambda path: path.stem, reverse=True)


def clean(build: Path) -> None:
    """Remove what runs have left, except each lesson's last attempts with default parameters."""
    for name in ("drafts", "sweep", f"{RECORDS}/{LESSONS}"):
        atomic.remove(build / name)
    for folder in (build / RUNS).glob("*/*"):
        records = build / RECORDS / folder.parent.name / folder.name
        for attempt in attempts.complete_attempts(folder):
            if not atomic.read_json(records / f"{attempt.name}.json").get("default"):
                _remove(attempt, records)
        _prune(folder, records)
    for folder in (*(build / RUNS).glob("*/*"), *(build / RECORDS).glob("*/*")):
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
            folder.parent.rmdir()


def _prune(folder: Path, records: Path) -> None:
    for attempt in attempts.complete_attempts(folder)[: -attempts.KEPT]:
        _remove(attempt, records)


def _remove(attempt: Path, records: Path) -> None:
    (records / f"{attempt.name}.json").unlink(missing_ok=True)
    atomic.remove(attempt)


def _digests(folder: Path) -> dict[str, str]:
    return {Path(name).name: found for name, found in keys.contents(sorted(folder.iterdir()))}


def _intact(attempt: Path, files: Mapping[str, str]) -> bool:
    try:
        return {NOTEBOOK, CHECKS} <= files.keys() and _digests(attempt) == files
    except OSError:
        return False
