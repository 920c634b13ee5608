"""Who executes the notebooks in `invoke bench`: our pipeline, its peers, and floors.

A contender is the commands that it takes for a workload, and where it leaves what the checks have
shown. Each execution has a folder of its own, a copy of what the workload has prepared.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import nbformat

from ci.bench.workload import JOBS, Workload
from ci.plan.attempts import NOTEBOOK

PYTHON = (sys.executable, "-P", "-m")
INVOKE = (sys.executable, "-m", "invoke", "run", "--on", "here", "--gpus", "none")

Shown = Mapping[str, str]  # what checks have shown, by `notebook check`


Command = Sequence[str]


@dataclass(frozen=True)
class Contender:
    """One way to execute a workload.

    `commands` are run in a copy of `start`, a folder of the workload, and leave what `shown` reads
    there; with `in_place`, in that folder itself, after the commands `before`, which do not count.
    `needs` are modules and programs that it can't do without. `part` is how many runs of the
    workload it executes, where not all. `more` is a JSON file of other figures that it leaves.
    """

    name: str
    kind: Literal["ours", "peer", "floor"]
    title: str
    commands: Callable[[Workload], list[Command]]
    shown: Callable[[Workload, Path], Shown] | None = None
    start: str = "notebooks"
    needs: tuple[str, ...] = ()
    in_place: bool = False
    before: tuple[Command, ...] = ()
    part: int | None = None
    more: str = ""

    @property
    def missing(self) -> str:
        """What it needs and this machine does not have."""
        return ", ".join(n for n in self.needs if not (find_spec(n) or shutil.which(n)))


def in_notebooks(folder: str) -> Callable[[Workload, Path], Shown]:
    """What the checks show in notebooks that were executed into `folder`."""

    def shown(workload: Workload, place: Path) -> Shown:
        files = {name: place / folder / f"{name}.ipynb" for name in workload.names}
        return {k: v for name, path in files.items() for k, v in of_notebook(path, name).items()}

    return shown


def of_notebook(path: Path, name: str) -> Shown:
    """What the checks of one executed notebook show, by their names after its own."""
    return {
        f"{name} {cell.metadata.check}": output.data["text/plain"]
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "check" in cell.metadata
        for output in cell.outputs
        if output.output_type == "execute_result"
    }


def in_report(workload: Workload, place: Path) -> Shown:
    """What the checks of our runs show, which `build/report.json` lists in their order."""
    runs = json.loads((place / "build" / "report.json").read_text(encoding="utf-8"))["runs"]
    attempts = {name: run["attempt"] for name, run in zip(workload.names, runs, strict=True)}
    found = [of_notebook(Path(path, NOTEBOOK), name) for name, path in attempts.items()]
    return {name: text for shown in found for name, text in shown.items()}


def in_json(workload: Workload, place: Path) -> Shown:
    """What the floors have written beside the notebooks."""
    found = {name: json.loads((place / f"{name}.json").read_text()) for name in workload.names}
    return {f"{name} {check}": text for name, of in found.items() for check, text in of.items()}


def _papermill(workload: Workload) -> list[Command]:
    return [
        [*PYTHON, "papermill", name, f"out-{name}", "--no-progress-bar"]
        + [word for pair in values.items() for word in ("-p", *map(str, pair))]
        for name, values in workload.chosen.items()
    ]


def _shown_by_papermill(workload: Workload, place: Path) -> Shown:
    found = [of_notebook(place / f"out-{name}.ipynb", name) for name in workload.names]
    return {name: text for shown in found for name, text in shown.items()}


OURS = Contender(
    "ours",
    "ours",
    "invoke run: executed, checked, and all that it writes",
    lambda w: [[*INVOKE, "--fresh", "--jobs", str(JOBS), *w.options]],
    in_report,
    start="project",
)
CHECKED = Contender(
    "checked",
    "ours",
    "our engine and checks: executed and checked, no handouts",
    lambda w: [[*PYTHON, "ci.bench.ours", "checked", str(JOBS), *w.settings]],
    in_report,
    start="project",
)
PAPERMILL = Contender(
    "papermill",
    "peer",
    "papermill, a command for each notebook",
    _papermill,
    _shown_by_papermill,
    needs=("papermill",),
)
POOL = Contender(
    "pool",
    "peer",
    f"Papermill's API in a pool of {JOBS}",
    lambda w: [[*PYTHON, "ci.bench.peers", "pool", str(JOBS), "chosen.json"]],
    in_notebooks("out"),
    needs=("papermill",),
)
NBCONVERT = Contender(
    "nbconvert",
    "peer",
    "jupyter nbconvert --execute, one command",
    lambda w: [
        [*PYTHON, "nbconvert", "--execute", "--to", "notebook", "--output-dir", "out", *w.files]
    ],
    in_notebooks("out"),
    needs=("nbconvert",),
)
NBMAKE = Contender(
    "nbmake",
    "peer",
    f"pytest --nbmake -n {JOBS}",
    lambda w: [
        [*PYTHON, "pytest", "--nbmake", "--overwrite", f"-n{JOBS}", "-c", "pytest.ini", *w.files]
    ],
    in_notebooks("."),
    needs=("pytest", "nbmake", "xdist"),
)
SCRIPTS = Contender(
    "scripts",
    "floor",
    "floor A: plain scripts, one after the other",
    lambda w: [[*PYTHON, "ci.bench.floors", name] for name in w.files],
    in_json,
    needs=("torch",),
)
PROCESS = Contender(
    "process",
    "floor",
    "floor B: one process, everything imported once",
    lambda w: [[*PYTHON, "ci.bench.floors", "--preload", *w.files]],
    in_json,
    needs=("torch",),
)
FIRST_40 = replace(OURS, name="ours at 40", title="the same for the first 40", part=40)

UNCHANGED = Contender(
    "unchanged",
    "ours",
    "invoke run, where nothing has changed",
    lambda _: [INVOKE],
    start="project",
    in_place=True,
    before=(INVOKE,),
)
LIST = Contender(
    "list", "ours", "invoke --list", lambda _: [[*INVOKE[:3], "--list"]], start="project"
)

# What is executed is executed before, in the project of us all.
EXECUTED_BEFORE = (
    INVOKE,
    ("sh", "-c", "rm -rf build/handouts build/instructors out && mkdir out"),
    ("sh", "-c", "cp build/runs/*/*/*/executed.ipynb out/executed.ipynb"),
    (*PYTHON, "ci.bench.peers", "one-language", "out/executed.ipynb", "en", "out/lesson.ipynb"),
)
HANDOUT = Contender(
    "handout",
    "ours",
    "HTML, PDF and notebook, one language",
    lambda _: [[*PYTHON, "ci.bench.ours", "handout", "out/executed.ipynb", "en"]],
    start="project",
    in_place=True,
    before=EXECUTED_BEFORE,
)
HANDOUTS = replace(
    HANDOUT,
    name="handouts",
    title="invoke run: all of it, two languages, two editions",
    commands=lambda _: [INVOKE],
)
TO_HTML = (*PYTHON, "nbconvert", "--to", "html", "out/lesson.ipynb")
WEBPDF = replace(
    HANDOUT,
    name="webpdf",
    kind="peer",
    title="nbconvert --to html, then webpdf by Chromium",
    commands=lambda _: [TO_HTML, [*PYTHON, "ci.bench.peers", "webpdf", "out/lesson.ipynb"]],
    needs=("nbconvert", "playwright", "chromium"),
)
LATEX = replace(
    HANDOUT,
    name="latex",
    kind="peer",
    title="nbconvert --to html, then pdf by XeLaTeX",
    commands=lambda _: [TO_HTML, [*PYTHON, "nbconvert", "--to", "pdf", "out/lesson.ipynb"]],
    needs=("nbconvert", "pandoc", "xelatex"),
)
MEMORY = Contender(
    "kernel",
    "ours",
    "a warm kernel in the small lesson",
    lambda _: [[*PYTHON, "ci.bench.ours", "memory", "memory.json"]],
    start="project",
    more="memory.json",
)
