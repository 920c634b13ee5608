"""Parts of our pipeline, measured alone: `python -P -m ci.bench.ours checked|handout|memory`.

In a folder with `lessons/`: `checked` executes and judges them, without handouts; `handout` sets
one executed lesson in one language; `memory` says what a warm kernel takes for itself. For its
commands, `invoke run` is measured itself.
"""

import json
import os
import sys
from pathlib import Path

import psutil

from ci.bench.stopwatch import MEGA, memory_mb
from ci.execute import engine
from ci.execute.events import End, Execution, Finished
from ci.execute.local import LocalExecutor
from ci.handout import exporters
from ci.handout.handout import Handout, provenance
from ci.judge import verdicts
from ci.lesson import oracle, reader
from ci.lesson.lesson import find_lessons
from ci.plan import planner, schedule
from ci.report import files

LESSONS, BUILD = Path("lessons").resolve(), Path("build").resolve()


def checked(jobs: str, *settings: str) -> None:
    """Execute all lessons, `jobs` at once, and judge them; exit status 1 if not all is verified."""
    lessons = [reader.read(path) for path in find_lessons(LESSONS)]
    runs = planner.runs(lessons, settings, (), slots=int(jobs))
    ordered = schedule.order(runs, lambda _: None)  # as in a project that is new
    oracles = {lesson.name: oracle.load(lesson) for lesson in lessons}
    outcomes = [
        verdicts.judge(event.execution, oracles[event.execution.run.lesson.name])
        for event in engine.execute(ordered, BUILD / "runs", LocalExecutor(), slots=int(jobs))
        if isinstance(event, Finished)
    ]
    outcomes.sort(key=lambda outcome: runs.index(outcome.run))
    files.write(outcomes, BUILD)
    sys.exit(not all(outcome.green for outcome in outcomes))


def set_handout(executed: str, language: str) -> None:
    """The HTML, the PDF and the notebook of one language, in `out/`."""
    lesson = reader.read(find_lessons(LESSONS)[0])
    (run,) = planner.runs([lesson], [], ())
    execution = Execution(run, Path(), End.COMPLETED, notebook=Path(executed))
    outcome = verdicts.judge(execution, oracle.load(lesson))
    exporters.write(Handout(outcome, provenance(outcome)), Path("out"), [language])


def memory(answer: str) -> None:
    """Write the MB that a warm kernel has for itself to the JSON file `answer`.

    Once it has imported torch, and at the end of its lesson; then also what it adds to the memory
    that is in use, which counts pages too that it shares with its stand-by for ranks alone.
    """
    from ci.worker.forked import ForkServer
    from ci.worker.notebook import BACKEND, execute

    lesson, fork_server = reader.read(find_lessons(LESSONS)[0]), ForkServer()
    found: dict[str, float] = {}
    fork_server.start({**os.environ, **BACKEND}, LESSONS)
    (parent,) = map(psutil.Process, fork_server.pids)
    alone = parent.memory_full_info().pss / MEGA
    sources = [cell.source for cell in lesson.notebook.cells]
    imported = next(i for i, source in enumerate(sources) if "import torch" in source) + 1

    def look(cell: int, cells: int) -> None:
        if cell == imported:
            found["private_mb"] = memory_mb(parent, "uss")
        if cell == cells - 1:
            together = memory_mb(parent) + parent.memory_full_info().pss / MEGA
            found["private_at_end_mb"] = memory_mb(parent, "uss")
            found["added_mb"] = together - alone

    execute(lesson, lesson.defaults, on_cell=look, fork_server=fork_server)
    fork_server.end()
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["checked", jobs, *settings]:
            checked(jobs, *settings)
        case ["handout", executed, language]:
            set_handout(executed, language)
        case ["memory", answer]:
            memory(answer)
