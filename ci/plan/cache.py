"""What was executed before and still stands, so that nothing is executed twice.

Each execution that came to its end leaves a record: its keys, what became of it, and the digests of
its files. Records lie beside the attempts and not in them, where a lesson in the lab may write.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ci import atomic
from ci.execute.engine import Event
from ci.execute.executor import Place
from ci.judge import verdicts
from ci.judge.verdicts import Outcome, Result
from ci.lesson import reader, script
from ci.lesson.oracle import Oracle
from ci.lesson.reader import Lesson
from ci.plan import attempts, keys
from ci.plan.attempts import EXECUTED
from ci.plan.keys import Keys
from ci.plan.planner import Run
from ci.report import json_report

KEPT = 3  # attempts of a run
RUNS, RECORDS, LESSONS = "runs", "records", "lessons"  # folders below build/
JUDGED = ("verified", "differs", "unchecked")  # of an execution that went through


@dataclass(frozen=True)
class Kept:
    """An execution that need not be repeated: what it depends on and what it left are as they were.

    It `stands` where its verdict does too; else its notebook is to be judged anew. `facts` are what
    its `checks.json` says.
    """

    run: Run
    keys: Keys
    attempt: Path
    stands: bool
    facts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What its handouts are made from."""
        return keys.digest(self.keys.handout, self.attempt.name)

    def unchanged(self) -> Outcome:
        """The outcome as it was found then, without its notebook."""
        checks = {declared.name: declared for declared in self.run.lesson.checks}
        results = []
        for facts in self.facts["checks"]:
            said = {k: v for k, v in facts.items() if k not in ("name", "kind", "line")}
            said["devices"] = tuple(said["devices"])
            results.append(Result(checks[facts["name"]], **said))
        return Outcome(
            self.run,
            "unchanged",
            tuple(results),
            seconds=self.facts["seconds"],
            date=self.facts["date"],
            attempt=self.attempt,
            environment=self.facts["environment"],
        )

    def judge(self, oracles: Mapping[str, Oracle]) -> Outcome:
        """The outcome by today's oracles, from the notebook that was kept."""
        end = Event(
            "ended",
            self.run,
            self.attempt,
            status="completed",
            executed=self.attempt / EXECUTED,
            seconds=self.facts["seconds"],
            date=self.facts["date"],
            environment=self.facts["environment"],
        )
        judged = verdicts.outcome(end, oracles)
        if judged.status != "verified":
            return judged
        if self.stands:
            return dataclasses.replace(judged, status="unchanged")
        return dataclasses.replace(judged, reason=f"executed {judged.date}, judged anew")


@dataclass(frozen=True)
class Work:
    """What is left to do of a plan: nothing, for what is `unchanged`; judge; execute.

    `lessons` are those of which something is left.
    """

    unchanged: list[Kept]
    judge: list[Kept]
    execute: list[Run]

    @property
    def lessons(self) -> list[Lesson]:
        """Each of them once, in the order of the course."""
        found = {run.lesson.name: run.lesson for run in self.execute}
        found |= {kept.run.lesson.name: kept.run.lesson for kept in self.judge}
        return [found[name] for name in sorted(found)]


class Ledger:
    """The records below `build` of what was executed at a place, and at others."""

    def __init__(self, build: Path, place: Place) -> None:
        self._runs, self._records, self._place = build / RUNS, build / RECORDS, place
        self._keys: dict[int, Keys] = {}

    def sort(
        self, runs: Sequence[Run], settled: Callable[[str, str], bool], *, fresh: bool = False
    ) -> Work:
        """What is to be done for `runs`; all of it where they are to be `fresh`.

        `settled(lesson, key)` says whether its handouts are made. To be called before anything
        starts: what a run depends on is noted now.
        """
        around = keys.around(self._place.identity())
        self._keys = {id(run): keys.of(run, around) for run in runs}
        found = {id(run): None if fresh else self._find(run) for run in runs}
        kept = [each for each in found.values() if each]
        lessons = Counter(run.lesson.name for run in runs)
        done = [
            each
            for each in kept
            if each.stands
            and each.run.is_default
            and lessons[each.run.lesson.name] == 1  # runs of one lesson are compared
            and settled(each.run.lesson.name, each.key)
        ]
        return Work(
            unchanged=done,
            judge=[each for each in kept if each not in done],
            execute=[run for run in runs if not found[id(run)]],
        )

    def _find(self, run: Run) -> Kept | None:
        """The last execution of `run` decides, unless its files are damaged."""
        found = self._keys[id(run)]
        for path in sorted(self._folder(run).glob("*.json"), reverse=True):
            known = _read(path)
            attempt = self._runs / run.lesson.name / run.key / path.stem
            if known.get("run") != found.run:
                continue
            same, status = known.get("check") == found.check, known.get("status")
            if status not in JUDGED or (same and status != "verified"):
                return None
            if not _intact(attempt, known.get("files", {})):
                continue
            return Kept(run, found, attempt, same, _read(attempt / "checks.json"))
        return None

    def seconds(self, run: Run) -> float | None:
        """How long `run` took the last time, or else another run of its lesson; None if unknown."""
        mine = self._folder(run).glob("*.json")
        others = (self._records / run.lesson.name).glob("*/*.json")
        for path in (*sorted(mine, reverse=True), *sorted(others, key=_date, reverse=True)):
            if took := self._took(path):
                return took
        return None

    @functools.cache  # noqa: B019 - a sweep's runs ask for the same
    def _took(self, record: Path) -> float | None:
        facts = _read(record)
        seconds: float | None = facts.get("seconds")
        return seconds if facts.get("status") in JUDGED else None

    def keep(self, outcome: Outcome) -> Outcome:
        """Complete the attempt of an outcome, record it, and remove those that it makes too many.

        What was changed while it ran is no longer known to have given this outcome: no record.
        """
        before = self._keys[id(outcome.run)]
        if outcome.status != "unchanged":
            outcome = _complete(outcome)
            _prune(
                self._runs / outcome.run.lesson.name / outcome.run.key, self._folder(outcome.run)
            )
            if keys.of(outcome.run, keys.around(self._place.identity())) != before:
                return outcome
            self._record(outcome, before)
        assert outcome.attempt
        return dataclasses.replace(outcome, key=keys.digest(before.handout, outcome.attempt.name))

    def _record(self, outcome: Outcome, found: Keys) -> None:
        assert outcome.attempt
        run = outcome.run
        facts = {
            "run": found.run,
            "check": found.check,
            "status": outcome.status,
            "seconds": outcome.seconds,
            "default": all(run.parameters[n] == run.lesson.defaults[n] for n in run.chosen),
            "files": dict(_digests(outcome.attempt)),
        }
        path = self._folder(run) / f"{outcome.attempt.name}.json"
        atomic.write(path, json.dumps(facts, indent=1))

    def _folder(self, run: Run) -> Path:
        return self._records / run.lesson.name / run.key


def _complete(outcome: Outcome) -> Outcome:
    """An outcome's attempt gets its checks beside its notebook and log, and its name."""
    assert outcome.attempt
    facts = json.dumps(json_report.of(outcome), indent=1, ensure_ascii=False)
    atomic.write(outcome.attempt / "checks.json", facts)
    return dataclasses.replace(outcome, attempt=attempts.complete(outcome.attempt))


def clean(build: Path) -> None:
    """Remove what runs have left, but the last attempts of each lesson as its author wrote it."""
    for name in ("drafts", "sweep", f"{RECORDS}/{LESSONS}"):
        shutil.rmtree(build / name, ignore_errors=True)
    for folder in (build / RUNS).glob("*/*"):
        records = build / RECORDS / folder.parent.name / folder.name
        for attempt in _attempts(folder):
            if not _read(records / f"{attempt.name}.json").get("default"):
                _remove(attempt, records)
        _prune(folder, records)
    for folder in (*(build / RUNS).glob("*/*"), *(build / RECORDS).glob("*/*")):
        with contextlib.suppress(OSError):  # something is left in it
            folder.rmdir()
            folder.parent.rmdir()


def read(path: Path, build: Path) -> Lesson:
    """`course.read`, with a memory of what the script was parsed to, which takes most of it."""
    memory = build / RECORDS / LESSONS / f"{path.stem}.json"

    def parse(text: str) -> NotebookNode:
        key, known = keys.digest(text, _parser()), _read(memory)
        if known.get("digest") == keys.digest(key, known.get("notebook")):
            notebook: NotebookNode = nbformat.from_dict(known["notebook"])
            return notebook
        notebook = script.parse(text)
        facts = {"digest": keys.digest(key, notebook), "notebook": notebook}
        atomic.write(memory, json.dumps(facts))
        return notebook

    return reader.read(path, parse)


@functools.cache
def _parser() -> str:
    return keys.digest(keys.packages(tuple(sys.path)), keys.code(("lesson/script.py",)))


def _read(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing where it is damaged or gone."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _date(record: Path) -> str:
    return record.name


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _intact(attempt: Path, files: Mapping[str, str]) -> bool:
    """Whether the files of an attempt are there, and what they were."""
    try:
        return {EXECUTED, "checks.json"} <= files.keys() and dict(_digests(attempt)) == files
    except OSError:
        return False


def _attempts(folder: Path) -> list[Path]:
    """The complete attempts in a folder, the oldest first."""
    return sorted(path for path in folder.glob("*") if path.name[0] != ".")


def _prune(folder: Path, records: Path) -> None:
    for attempt in _attempts(folder)[:-KEPT]:
        _remove(attempt, records)


def _remove(attempt: Path, records: Path) -> None:
    (records / f"{attempt.name}.json").unlink(missing_ok=True)
    shutil.rmtree(attempt, ignore_errors=True)
