"""Contenders that no command line offers: `python -P contenders.py NAME ARGUMENT...`.

`checked`, `handout` and `memory` are parts of the pipeline, in a project with lessons/. `pool` and
`webpdf` are competitors, through the APIs of Papermill and nbconvert.
"""

import json
import os
import shutil
import sys
from functools import partial, partialmethod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import psutil


def checked(jobs: str, *settings: str) -> None:
    """Execute and judge all lessons, `jobs` at once; exit status 1 if not all are verified."""
    from ci.execute import engine
    from ci.execute.events import Finished
    from ci.execute.local import LocalExecutor
    from ci.judge import verdicts
    from ci.lesson import oracle, reader
    from ci.lesson.lesson import find_lessons
    from ci.plan import planner, schedule
    from ci.report import files

    lessons = [reader.read(path) for path in find_lessons(Path("lessons").resolve())]
    runs = planner.runs(lessons, settings, (), slots=int(jobs))
    oracles = {lesson.name: oracle.load(lesson) for lesson in lessons}
    ordered = schedule.order(runs, lambda _: None)  # as in a new project
    attempts = Path("build/runs").resolve()
    outcomes = [
        verdicts.judge(event.execution, oracles[event.execution.run.lesson.name])
        for event in engine.execute(ordered, attempts, LocalExecutor(), slots=int(jobs))
        if isinstance(event, Finished)
    ]
    outcomes.sort(key=lambda outcome: runs.index(outcome.run))
    files.write(outcomes, Path("build"))
    sys.exit(not all(outcome.green for outcome in outcomes))


def handout(executed: str, language: str) -> None:
    """Write the HTML, PDF and notebook of one language to out/."""
    from ci.execute.events import End, Execution
    from ci.handout import exporters
    from ci.handout.handout import Handout, provenance
    from ci.judge import verdicts
    from ci.lesson import oracle, reader
    from ci.lesson.lesson import find_lessons
    from ci.plan import planner

    lesson = reader.read(find_lessons(Path("lessons").resolve())[0])
    (run,) = planner.runs([lesson], [], ())
    execution = Execution(run, Path(), End.COMPLETED, notebook=Path(executed))
    outcome = verdicts.judge(execution, oracle.load(lesson))
    exporters.write(Handout(outcome, provenance(outcome)), Path("out"), [language])


def memory(answer: str) -> None:
    """Write to a JSON file how many MB a warm kernel has for itself after its imports."""
    from ci.lesson import reader
    from ci.lesson.lesson import find_lessons
    from ci.worker.forked import ForkServer
    from ci.worker.notebook import BACKEND, execute

    lesson, fork_server = reader.read(find_lessons(Path("lessons").resolve())[0]), ForkServer()
    sources = [cell.source for cell in lesson.notebook.cells]
    imported = next(i for i, source in enumerate(sources) if "import torch" in source) + 1

    def look(cell: int, _: int) -> None:
        if cell == imported:
            (parent,) = map(psutil.Process, fork_server.pids)
            private = [
                process.memory_full_info().uss for process in parent.children(recursive=True)
            ]
            Path(answer).write_text(json.dumps({"private_mb": sum(private) / 1e6}))

    fork_server.start({**os.environ, **BACKEND}, lesson.path.parent)
    execute(lesson, lesson.defaults, on_cell=look, fork_server=fork_server)
    fork_server.end()


def one_language(executed: str, language: str, target: str) -> None:
    """Write a notebook without the prose of other languages, as the pipeline's handouts are."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [c for c in notebook.cells if c.metadata.get("lang", language) == language]
    nbformat.write(notebook, target)


def pool(jobs: str) -> None:
    """Execute the notebooks of this folder into out/, in a pool that imports Papermill once."""
    from papermill import execute_notebook

    names = sorted(path.name for path in Path().glob("*.ipynb"))
    parameters = [json.loads(Path(f"{name}.yaml").read_text()) for name in names]
    calls = zip(names, (f"out/{name}" for name in names), parameters, strict=True)
    with get_context("fork").Pool(int(jobs)) as processes:
        processes.starmap(partial(execute_notebook, progress_bar=False), calls, chunksize=1)


def webpdf(notebook: str) -> None:
    """Print a notebook as `nbconvert --to webpdf` does, but with the system's Chromium."""
    from nbconvert.exporters import WebPDFExporter
    from playwright.async_api import BrowserType

    launch = partialmethod(BrowserType.launch, executable_path=shutil.which("chromium"))
    setattr(BrowserType, "launch", launch)  # noqa: B010  # mypy refuses an assignment
    exporter = WebPDFExporter(disable_sandbox=True)  # Chromium has no sandbox for root
    printed: Any = exporter.from_filename(notebook)[0]
    Path(notebook).with_suffix(".pdf").write_bytes(printed)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
