"""What the contenders of a row execute: the same lessons, for each contender in its own form."""

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ci.lesson import reader
from ci.lesson.lesson import find_lessons
from ci.plan.planner import THREAD_VARIABLES

JOBS = 2  # notebooks in parallel, for every contender that can
# As in the kernels of the pipeline.
SVG_FIGURES = "c = get_config()\nc.InlineBackend.figure_formats = {'svg'}\n"
PYTHON, BENCH = shlex.quote(sys.executable), shlex.quote(str(Path(__file__).parent))
PLACEHOLDERS = {"python": f"{PYTHON} -P", "invoke": f"{PYTHON} -m invoke", "bench": BENCH}
PLACEHOLDERS["run"] = "{invoke} run --on here --gpus none".format(**PLACEHOLDERS)


@dataclass(frozen=True)
class Workload:
    """A folder with a `project` for the pipeline, and `notebooks` for the others: one for each run,
    so for each lesson and seed."""

    folder: Path
    names: Sequence[str]  # of the notebooks
    seeds: int = 0

    def script(self, template: str, first: int | None = None) -> str:
        """A contender's script without {placeholders}, for the `first` runs or for all."""
        setting = f"seed={','.join(map(str, range(first or self.seeds)))}" if self.seeds else ""
        options = f"-p {setting}" if setting else ""
        return template.format(**PLACEHOLDERS, jobs=JOBS, setting=setting, options=options)

    def environment(self, *, own_threads: bool) -> dict[str, str]:
        """The environment of every contender: without GPUs and the user's settings of Jupyter.

        All have as many threads as the pipeline gives its kernels, or each its own default.
        """
        threads = dict.fromkeys(THREAD_VARIABLES, str(max(1, (os.cpu_count() or 1) // JOBS)))
        threads["OMP_WAIT_POLICY"] = "PASSIVE"
        kept = {n: v for n, v in os.environ.items() if n not in {*threads, "PYTEST_ADDOPTS"}}
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            kept[name] = str(self.folder / "ipython")
        return kept | {"CUDA_VISIBLE_DEVICES": ""} | ({} if own_threads else threads)


def prepare(scripts: Sequence[Path], root: Path, folder: Path, seeds: int = 0) -> Workload:
    """Write these lessons to `folder`: as a project like the one in `root`, and as notebooks.

    Each lesson is executed with each seed below `seeds`; with 0 seeds, once with its defaults.
    """
    project, notebooks, source = folder / "project", folder / "notebooks", scripts[0].parent
    others = {path.name for path in find_lessons(source)} - {path.name for path in scripts}
    ignored = shutil.ignore_patterns("__pycache__", *others)
    shutil.copytree(source, project / "lessons", ignore=ignored)
    for name in ("tasks.py", "pyproject.toml"):
        shutil.copy(root / name, project)
    ignored = shutil.ignore_patterns("expected", *(path.name for path in scripts))
    shutil.copytree(project / "lessons", notebooks, ignore=ignored)
    (notebooks / "out").mkdir()
    (notebooks / "pytest.ini").write_text("[pytest]\n")
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(SVG_FIGURES)
    names: list[str] = []
    for lesson in map(reader.read, scripts):
        for parameters in [{"seed": seed} for seed in range(seeds)] or [{}]:
            names.append(f"{lesson.name}-{len(names):03}")
            path = notebooks / f"{names[-1]}.ipynb"
            nbformat.write(notebook(lesson.notebook, parameters), path)
            Path(f"{path}.yaml").write_text(json.dumps(parameters))  # JSON is YAML
    return Workload(folder, names, seeds)


def notebook(lesson: NotebookNode, parameters: Mapping[str, int]) -> NotebookNode:
    """A lesson's notebook for the competitors, with these parameters and without cells that raise.

    Papermill stops at an error, even a declared one, so the declared type is caught and printed.
    """
    made: NotebookNode = nbformat.from_dict(lesson)
    for index, cell in enumerate(list(made.cells)):
        if declared := cell.metadata.get("raises"):
            body = textwrap.indent(cell.source, "    ")
            cell.source = f"try:\n{body}\nexcept {declared} as error:\n    print(error)"
        if parameters and "parameters" in cell.metadata.get("tags", []):
            values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
            injected = {"tags": ["injected-parameters"]}  # Papermill replaces this cell
            made.cells.insert(index + 1, new_code_cell(values, id="injected", metadata=injected))
    return made
