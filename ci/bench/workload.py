"""What is executed in `invoke bench`: the same lessons for all, each in its form.

We get a project, as a user has one; the others get notebooks with the parameters set.
"""

import copy
import json
import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ci.lesson import reader
from ci.lesson.lesson import find_lessons
from ci.lesson.parameters import Value
from ci.plan import planner
from ci.plan.planner import THREAD_VARIABLES, Run

JOBS = 2  # notebooks at once, for all who can
# The kernel's own settings of `ci.worker.kernel`, for the peers: figures in the same format.
SVG = "c = get_config()\nc.InlineBackend.figure_formats = {'svg'}\n"


@dataclass(frozen=True)
class Workload:
    """What is executed: some lessons, with settings as for `invoke run -p`.

    `folder` has a project for us, and for the others `notebooks`, one for each run.
    """

    folder: Path
    settings: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def project(self) -> Path:
        """Lessons, tasks.py and pyproject.toml."""
        return self.folder / "project"

    @property
    def notebooks(self) -> Path:
        """The notebooks, and what their lessons import."""
        return self.folder / "notebooks"

    @property
    def names(self) -> list[str]:
        """The notebooks' names, in the order of the runs."""
        return [f"{run.lesson.name}-{index:03}" for index, run in enumerate(self.runs)]

    @property
    def files(self) -> list[str]:
        """The notebooks' file names."""
        return [f"{name}.ipynb" for name in self.names]

    @property
    def chosen(self) -> dict[str, dict[str, Value]]:
        """The parameters that were set for each notebook, by its file name."""
        values = [{name: run.parameters[name] for name in run.chosen} for run in self.runs]
        return dict(zip(self.files, values, strict=True))

    def first(self, number: int) -> "Workload":
        """The same with the first runs of its sweep alone."""
        cut = [",".join(setting.split(",")[:number]) for setting in self.settings]
        return replace(self, settings=tuple(cut), runs=self.runs[:number])

    @property
    def options(self) -> list[str]:
        """The settings as options of `invoke run`."""
        return [word for setting in self.settings for word in ("-p", setting)]


def prepare(
    scripts: Sequence[Path], root: Path, folder: Path, settings: Sequence[str] = ()
) -> Workload:
    """Prepare in `folder` what is executed: `scripts`, with the project's `root` around them."""
    project = folder / "project"
    project.mkdir(parents=True)
    for name in ("tasks.py", "pyproject.toml"):
        shutil.copy(root / name, project)
    wanted = {script.name for script in scripts}
    for source in {script.parent for script in scripts}:
        others = [path.name for path in find_lessons(source) if path.name not in wanted]
        ignored = shutil.ignore_patterns("__pycache__", *others)
        shutil.copytree(source, project / "lessons", ignore=ignored, dirs_exist_ok=True)
    lessons = [reader.read(project / "lessons" / name) for name in sorted(wanted)]
    made = Workload(folder, tuple(settings), tuple(planner.runs(lessons, settings, (), slots=JOBS)))
    _write_notebooks(made)
    return made


def _write_notebooks(workload: Workload) -> None:
    """Beside the notebooks stand what they import, and settings of the peers' own."""
    scripts = [run.lesson.path.name for run in workload.runs]
    ignored = shutil.ignore_patterns("expected", "__pycache__", *scripts)
    shutil.copytree(workload.project / "lessons", workload.notebooks, ignore=ignored)
    for name, run in zip(workload.files, workload.runs, strict=True):
        chosen = {name: run.parameters[name] for name in run.chosen}
        nbformat.write(notebook(run.lesson.notebook, chosen), workload.notebooks / name)
    (workload.notebooks / "pytest.ini").write_text("[pytest]\n")
    (workload.notebooks / "chosen.json").write_text(json.dumps(workload.chosen))
    profile = workload.folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(SVG)


def notebook(lesson: NotebookNode, chosen: Mapping[str, Value]) -> NotebookNode:
    """A lesson as the peers get it: with its parameters set, and no cell that raises.

    Papermill ends at an error, also where it is meant to be shown, so it is caught and printed.
    """
    made: NotebookNode = copy.deepcopy(lesson)
    for index, cell in enumerate(list(made.cells)):
        if "raises" in cell.metadata:
            body = textwrap.indent(cell.source, "    ")
            name = cell.metadata.raises
            cell.source = f"try:\n{body}\nexcept {name} as error:\n    print(error)"
        if chosen and "parameters" in cell.metadata.get("tags", []):
            values = "\n".join(f"{name} = {value!r}" for name, value in chosen.items())
            injected = {"tags": ["injected-parameters"]}  # Papermill puts its own in this place
            made.cells.insert(index + 1, new_code_cell(values, id="injected", metadata=injected))
    return made


def environment(workload: Workload, *, defaults: bool = False) -> dict[str, str]:
    """The environment for each contender: without the user's settings of Jupyter, without GPUs.

    All have as many threads as our pipeline gives its kernels; with `defaults`, nothing is set.
    """
    users = {*THREAD_VARIABLES, "OMP_WAIT_POLICY", "PYTEST_ADDOPTS"}
    base = {name: value for name, value in os.environ.items() if name not in users}
    private = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    base |= dict.fromkeys(private, str(workload.folder / "ipython"))
    base |= {"CUDA_VISIBLE_DEVICES": ""}
    threads = str(max(1, (os.cpu_count() or 1) // JOBS))
    alike = {**dict.fromkeys(THREAD_VARIABLES, threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return base if defaults else base | alike
