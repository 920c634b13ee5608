"""Runs that the tasks of a job array claim from a shared folder, and what the tasks tell of them.

A file in `queue/` is the request of a run that waits. A task claims it by a rename into `claimed/`,
which succeeds for one task only. It appends what happens to a file of its own in `events/`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.machine import atomic

QUEUE, CLAIMED, EVENTS, ATTEMPTS, LOGS = "queue", "claimed", "events", "attempts", "logs"
ABOUT, JOBS = "batch.json", "jobs.json"
ENDS = ("ended", "lost")  # the events after which a task tells nothing more of a run

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A run of a batch: its place in the order, its key, and how often it was lost with a node.

    `task` has claimed it; it is empty while the run waits.
    """

    number: str
    key: str
    losses: int = 0
    task: str = ""

    @classmethod
    def parse(cls, name: str) -> "Entry":
        """The entry of a file with this name."""
        request, _, task = name.partition("@")
        number, key, losses = request.split("-")
        return cls(number, key, int(losses), task)

    @property
    def name(self) -> str:
        """The name of its file, and of its attempt."""
        return f"{self.number}-{self.key}-{self.losses}" + f"@{self.task}" * bool(self.task)


class Batch:
    """The runs in a folder, which one command at a time and the tasks of its arrays use.

    `jobs` are the ids of its job arrays, in the order of their submission.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[str] = atomic.read_json(folder / JOBS).get("jobs", [])

    @classmethod
    def create(cls, folder: Path, requests: Mapping[str, Message], about: Message) -> "Batch":
        """A batch with the requests of runs, by their keys; it appears as a whole."""
        new = folder.with_name(f".{folder.name}")
        for name in (QUEUE, CLAIMED, EVENTS, ATTEMPTS, LOGS):
            (new / name).mkdir(parents=True)
        for number, (key, request) in enumerate(requests.items()):
            (new / QUEUE / Entry(f"{number:06}", key).name).write_text(json.dumps(request))
        atomic.write_json(new / ABOUT, about)
        new.rename(folder)
        return cls(folder)

    @property
    def about(self) -> Message:
        """What was given to `create`."""
        return atomic.read_json(self.folder / ABOUT)

    def add_job(self, job: str) -> None:
        """Note a job array that executes its runs."""
        self.jobs.append(job)
        atomic.write_json(self.folder / JOBS, {"jobs": self.jobs})

    def entries(self) -> list[Entry]:
        """Its runs that wait, are in progress, or have ended and were not collected."""
        names = {name for part in (QUEUE, CLAIMED) for name in names_in(self.folder / part)}
        return [Entry.parse(name) for name in sorted(names)]

    def claims(self, task: str) -> Iterator[Message]:
        """Claim one run after the other for a task, until none waits; the requests."""
        is_claimed = True
        while is_claimed:
            is_claimed = False
            for name in names_in(self.folder / QUEUE):
                claimed = self.folder / CLAIMED / f"{name}@{task}"
                try:
                    (self.folder / QUEUE / name).rename(claimed)
                except FileNotFoundError:  # another task was faster
                    continue
                is_claimed = True
                attempt = self.attempt(Entry.parse(claimed.name))
                attempt.mkdir()
                request = json.loads(claimed.read_text())
                yield {**request, "run": claimed.name, "attempt": str(attempt)}

    def attempt(self, entry: Entry) -> Path:
        """The folder of a claimed run's files."""
        return self.folder / ATTEMPTS / entry.name

    def log(self, task: str) -> Path:
        """What a task has printed."""
        return self.folder / LOGS / task

    def put_back(self, entry: Entry) -> None:
        """Let another task claim a run whose task is lost."""
        again = Entry(entry.number, entry.key, entry.losses + 1)
        (self.folder / CLAIMED / entry.name).rename(self.folder / QUEUE / again.name)

    def drop(self, entry: Entry) -> None:
        """Remove a run, once its result is kept elsewhere."""
        for part in (CLAIMED, QUEUE):
            (self.folder / part / entry.name).unlink(missing_ok=True)
        if entry.task:
            atomic.remove(self.attempt(entry))


class Messages:
    """What the tasks of a batch tell, as far as it was read.

    `last` is the last message about each claimed run, by its name; `environments` are those of the
    tasks' fork servers; `working` are the arrays that have executed something.
    """

    def __init__(self, batch: Batch) -> None:
        self.last: dict[str, Message] = {}
        self.environments: dict[str, Mapping[str, str]] = {}
        self.working: set[str] = set()
        self._folder = batch.folder / EVENTS
        self._sizes: dict[str, int] = {}  # how many bytes of each file were read

    def read(self) -> None:
        """Take note of what the tasks have appended."""
        for task in names_in(self._folder):
            with (self._folder / task).open("rb") as events:
                events.seek(self._sizes.get(task, 0))
                whole, newline, _ = events.read().rpartition(b"\n")
            self._sizes[task] = self._sizes.get(task, 0) + len(whole + newline)
            for message in map(json.loads, whole.splitlines()):
                if message["event"] == "ready":
                    self.environments[task] = message["environment"]
                else:
                    self.last[message["run"]] = message
                    self.working.add(task.partition("_")[0])


def names_in(folder: Path) -> Sequence[str]:
    """The sorted names in a folder; none if it is gone."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - there may be thousands
    except FileNotFoundError:
        return ()
