"""Workers at their place, and what they tell. A worker serves one run at a time; several workers go
on side by side.
"""

import contextlib
import json
import os
import queue
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from ci.errors import MachineError
from ci.place import Place
from ci.plan import Run

EXECUTED, LOG = "executed.ipynb", "log.txt"  # what a worker leaves in an attempt
GRACE_S = 60.0  # beyond a run's own deadline, which the worker keeps
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """What happened to a run: `started`, `cell` (n of m begins), or `ended`.

    An end has a status (completed, failed, timed out), the cell and the reason of a fault, the
    notebook if the worker left one, the seconds that it took, the date (UTC), and the environment
    that it ran in.
    """

    kind: str
    run: Run
    folder: Path
    cell: int = 0
    cells: int = 0
    status: str = ""
    at: str = ""
    reason: str = ""
    executed: Path | None = None
    seconds: float = 0.0
    date: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def start(runs: Sequence[Run], folder: Path, place: Place, *, slots: int = 1) -> Iterator[Event]:
    """Execute `runs` at `place`, `slots` workers at once, and yield what happens, ends last.

    Each run has an attempt of its own, a new folder under `folder`. Closing the iterator ends all
    that is still running.
    """
    _sweep(folder)
    batches = queue.SimpleQueue[list[Run]]()
    for _, batch in groupby(runs, key=lambda run: id(run) if place.shared else run.lesson.name):
        batches.put(list(batch))
    several = place.shared and len(runs) > slots  # for a worker to execute
    events = queue.SimpleQueue[Event | Exception]()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_serve, args=(batches, several, folder, place, events, stop))
        for _ in range(slots)
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(runs)
        while left:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            left -= event.kind == "ended"
            yield event
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def attempt(run: Run, folder: Path) -> Path:
    """A new folder for one execution of `run`, hidden until it is complete."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = folder / run.lesson.name / run.key / f".{stamp}-{os.getpid()}"
    path.mkdir(parents=True)
    return path


def complete(attempt: Path) -> Path:
    """Give a finished attempt its name, by which it is known to hold all that belongs to it."""
    if not attempt.name.startswith("."):
        return attempt
    return attempt.rename(attempt.with_name(attempt.name[1:].partition("-")[0]))


def _tidy(attempt: Path) -> Path | None:
    """Remove what a lesson left in its attempt beside what its worker did; the notebook, if any.

    A lesson may write there. What we go on to write must not find a link of its, to elsewhere.
    """
    for path in attempt.iterdir():
        if path.name in (EXECUTED, LOG) and stat.S_ISREG(path.lstat().st_mode):
            path.chmod(0o644)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    notebook = attempt / EXECUTED
    return notebook if notebook.exists() else None


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left: unfinished attempts, kernels' private folders."""
    attempts = [
        (path, path.name.rpartition("-")[2])
        for path in folder.glob("*/*/.*-*")
        if not (path.parent.is_symlink() or path.parent.parent.is_symlink())
    ]
    places = {Path(tempfile.gettempdir()), Path("/tmp")}  # as in execute: /tmp for a long path
    private = [path for place in places for path in place.glob("pytorch-course-*-*")]
    for path, pid in [*attempts, *((path, path.name.split("-")[2]) for path in private)]:
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _serve(
    batches: "queue.SimpleQueue[list[Run]]",
    several: bool,
    folder: Path,
    place: Place,
    events: "queue.SimpleQueue[Event | Exception]",
    stop: threading.Event,
) -> None:
    try:
        with contextlib.ExitStack() as workers:
            worker: Worker | None = None
            while not stop.is_set():
                waiting = batches.get_nowait()
                warm = several or len(waiting) > 1
                while waiting and not stop.is_set():
                    if not (worker and worker.takes(waiting[0])):
                        workers.close()
                        worker = Worker(waiting, folder, place, stop, warm=warm)
                        workers.enter_context(worker)
                    for event in worker.execute(waiting.pop(0)):
                        events.put(event)
    except queue.Empty:
        return
    except Exception as error:  # the thread that consumes the events raises it again
        events.put(error)


class Worker:
    """A worker for `runs`, and others that are like them. Kernels that are `warm` share imports."""

    def __init__(
        self,
        runs: Sequence[Run],
        folder: Path,
        place: Place,
        stop: threading.Event,
        *,
        warm: bool = False,
    ) -> None:
        self._folder, self._place, self._stop = folder, place, stop
        self._first, self._warm = runs[0], warm
        self._channel = place.start(runs, folder, _settings(runs[0]))
        self._lines = queue.SimpleQueue[str]()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._environment: dict[str, str] = {}
        self._alive = True

    def takes(self, run: Run) -> bool:
        """Whether it can execute `run`: it lives, and was started with what the run needs."""
        alike = self._place.shared or run.lesson == self._first.lesson
        return self._alive and alike and run.threads == self._first.threads

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker, and whatever it could not end itself."""
        self._channel.close()
        self._reader.join()

    def execute(self, run: Run) -> Iterator[Event]:
        """Execute one run; the last event is its end, whatever becomes of the worker."""
        path = attempt(run, self._folder)
        yield Event("started", run, path)
        began = time.monotonic()
        self._request(run, path)
        deadline = began + run.timeout_s + GRACE_S
        for message in self._messages(deadline):
            if message["event"] == "ready":
                self._environment = {**message["environment"], **self._place.facts}
                _require_cuda(run, self._environment)
            elif message["event"] == "cell":
                yield Event("cell", run, path, cell=message["cell"], cells=message["cells"])
            elif message["event"] == "ended":
                self._place.reclaim(path)
                left = _tidy(path)
                yield Event(
                    "ended",
                    run,
                    path,
                    status=message["status"],
                    at=message["cell"],
                    reason=message["reason"],
                    executed=left if message["saved"] else None,
                    seconds=message["seconds"],
                    date=_now(),
                    environment=self._environment,
                )
                return
        self._alive = False
        reason = self._death()
        self._channel.close()  # before we tidy up behind it
        self._place.reclaim(path)
        _tidy(path)
        if self._stop.is_set():
            shutil.rmtree(path, ignore_errors=True)
        yield Event(
            "ended",
            run,
            path,
            status="failed",
            reason=reason,
            seconds=time.monotonic() - began,
            date=_now(),
            environment=self._environment,
        )

    def _request(self, run: Run, path: Path) -> None:
        request = {
            "run": run.key,
            "lesson": self._place.lesson(run.lesson.path),
            "digest": run.lesson.digest,
            "parameters": dict(run.parameters),
            "output": self._place.attempt(path),
            "timeout_s": run.timeout_s,
            "warm": self._warm,
            "environment": {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in run.gpus)},
        }
        with contextlib.suppress(OSError):  # a worker that is gone shows in its answers
            self._channel.send(json.dumps(request) + "\n")

    def _messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        """What the worker says, until it ends, hangs beyond `deadline`, or we are to stop."""
        while time.monotonic() < deadline and not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.2)
                if not line:
                    return
                with contextlib.suppress(ValueError):  # something else printed, a sitecustomize
                    message = json.loads(line)
                    if isinstance(message, dict) and "event" in message:
                        yield message

    def _read(self) -> None:
        for line in self._channel.lines():
            self._lines.put(line)
        self._lines.put("")

    def _death(self) -> str:
        return "interrupted" if self._stop.is_set() else f"its worker {self._channel.ending()}"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _require_cuda(run: Run, environment: Mapping[str, str]) -> None:
    if run.gpus and not environment.get("cuda"):
        raise MachineError(
            f"{run.gpus[0].name} is there, but torch {environment.get('torch')} is a CPU build: "
            "install the CUDA build, or say --gpus none"
        )


def _settings(run: Run) -> dict[str, str]:
    """Threads as the plan fixed them; waiting ones sleep, or two lessons on two cores crawl."""
    threads = dict.fromkeys(THREAD_VARIABLES, str(run.threads))
    return {**threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
