"""How far the runs of a plan are: lines for a log, and cells of the live table."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ci.execute.events import CellStarted, Event, Started
from ci.handout.markdown import plain
from ci.lesson.lesson import Lesson
from ci.plan.planner import Run

HEARTBEAT_S = 30.0
HEADING = "#"


@dataclass
class Progress:
    """How far one run is; `expected_s` is how long its last execution took, if it is known."""

    run: Run
    expected_s: float | None = None
    started: float | None = None
    cell: int = 0
    cells: int = 0
    headings: list[str] = field(default_factory=list)
    job: str = ""

    def on_event(self, event: Event) -> None:
        """Take note of a start of the run or of one of its cells."""
        if isinstance(event, Started):
            self.started, self.headings = time.monotonic(), headings(self.run.lesson)
            self.job = f"Slurm job {event.job}" if event.job else ""
        elif isinstance(event, CellStarted):
            if not self.cells:  # before, the fork server may have imported
                self.started = time.monotonic()
            self.cell, self.cells = event.cell + 1, event.cells

    @property
    def start(self) -> str:
        """The line of a log when it starts."""
        known = f", about {duration(self.expected_s)} expected" if self.expected_s else ""
        where = f" in {self.job}" if self.job else ""
        return f"{self.run.name}: started{where}{known}"

    @property
    def elapsed(self) -> str:
        """`0:34 of about 1:10`."""
        if self.started is None:
            return ""
        known = f" of about {duration(self.expected_s)}" if self.expected_s else ""
        return f"{duration(time.monotonic() - self.started)}{known}"

    @property
    def place(self) -> str:
        """`cell 12/50, Gradients`, after the job of a cluster."""
        cell = f"cell {self.cell}/{self.cells}" if self.cells else ""
        headings = self.headings if self.cells else []
        heading = headings[min(self.cell, len(headings)) - 1] if headings else ""
        return ", ".join(filter(None, (self.job, cell, heading)))

    @property
    def line(self) -> str:
        """The line of a log while it runs."""
        return f"{self.run.name}: {self.elapsed}, {self.place or 'starting'}"


def duration(seconds: float) -> str:
    """Minutes and seconds: `1:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def headings(lesson: Lesson) -> list[str]:
    """For each cell of a lesson, the heading above it, in the first of the lesson's languages."""
    found, current, language = [], "", lesson.languages[0]
    for cell in lesson.notebook.cells:
        if cell.cell_type == "markdown" and cell.metadata.get("lang", language) == language:
            titles = [line for line in cell.source.splitlines() if line.startswith(HEADING)]
            current = plain(titles[-1].lstrip(HEADING).strip()) if titles else current
        found.append(current)
    return found


class Heartbeat(threading.Thread):
    """Calls `beat` every HEARTBEAT_S until it is stopped, so that a log shows that runs go on."""

    def __init__(self, beat: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._beat, self._stopped = beat, threading.Event()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopped.wait(HEARTBEAT_S):
            self._beat()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()


def lines(running: Mapping[int, Progress]) -> list[str]:
    """One line for each run that has started."""
    return [progress.line for progress in list(running.values()) if progress.started is not None]
