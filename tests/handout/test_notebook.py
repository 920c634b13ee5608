"""The notebooks that students open run without the course."""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from packaging.requirements import Requirement

from ci.handout import notebook
from ci.handout.editions import INSTRUCTORS
from ci.handout.handout import prepare
from ci.lesson import reader
from ci.lesson.lesson import Lesson, find_lessons
from tests.conftest import EXERCISE, GRADIENT, HALVES, ORACLE, ROOT, Read
from tests.handout.test_workbook import handed_out

LESSONS = ROOT / "lessons"
NAMES = [path.stem for path in find_lessons(LESSONS)]
WITH_EXERCISES = [path.stem for path in find_lessons(LESSONS) if '"exercise"' in path.read_text()]
ALONE = ["torch", "numpy", "matplotlib", "ipykernel", "nbclient"]
Execute = Callable[[Path], NotebookNode]


def closure(names: list[str]) -> set[str]:
    """Distributions, and those that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or [])
            waiting += [n.name for n in needs if not n.marker or n.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with only torch, NumPy, matplotlib and Jupyter.

    Its packages are links to the packages of this environment, and it has no others.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=False)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    for name in closure(ALONE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            link = packages / top
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "venv/bin/python"


EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
for module in ("ci", "invoke", "jupytext", "papermill"):
    try:
        __import__(module)
    except ImportError:
        continue
    sys.exit(f"{module} is here")
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300).execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture
def execute(elsewhere: Path, tmp_path: Path) -> Iterator[Execute]:
    """Execute a notebook there, beside its file."""
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONNOUSERSITE": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PATH": "",
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "OMP_NUM_THREADS": "1",
    }

    def run(path: Path) -> NotebookNode:
        command = [str(elsewhere), "-P", "-c", EXECUTE, path.name]
        done = subprocess.run(
            command, cwd=path.parent, env=settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return nbformat.read(path, as_version=4)

    return run


def errors(executed: NotebookNode) -> dict[str, str]:
    """What each cell raised, by id."""
    return {
        cell.id: f"{output.ename}: {output.evalue}"
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }


def checks(executed: NotebookNode) -> list[str]:
    """The ids of the cells that check an exercise."""
    return checks_of(cell.id for cell in executed.cells)


def checks_of(names: Iterable[str]) -> list[str]:
    """Of the ids of cells, those of checks."""
    return [name for name in names if name.startswith("check-") and name != "check-answer"]


def written(workbook: NotebookNode) -> list[str]:
    """The cells that write modules of the course."""
    return [cell.source for cell in workbook.cells if cell.source.startswith("%%writefile")]


FORGET = new_code_cell("%reset_selective -f .", id="forget")  # all names of the cells above


def prove(lesson: Lesson, execute: Execute, folder: Path) -> None:
    """Each check of a lesson's workbook fails with the blank and passes with the solution.

    Both editions of the workbook are executed by one kernel, because it imports torch for seconds.
    """
    made = handed_out(lesson)
    assert made.workbook, "its expected values are not known"
    blank = notebook.workbook(made, "en")
    solved = notebook.workbook(replace(made, edition=INSTRUCTORS), "zh")
    assert written(blank) == written(solved)
    solutions = [f"solved-{name}" for name in checks(solved)]
    for cell in solved.cells:
        cell.id = f"solved-{cell.id}"
    both = new_notebook(cells=[*blank.cells, FORGET, *solved.cells], metadata=blank.metadata)
    path = folder / "workbook.ipynb"
    path.write_text(notebook.text_of(both), "utf-8")

    executed = execute(path)

    raised = errors(executed)
    assert list(raised) == checks(blank), raised
    assert len(raised) == len(lesson.exercises)
    assert all(text.startswith("AssertionError: ✗ ") for text in raised.values()), raised
    printed = (cell.outputs for cell in executed.cells if cell.id in solutions)
    ticks = ["".join(piece.text for piece in pieces) for pieces in printed]
    assert ticks == [f"✓ {exercise.name}\n" for exercise in lesson.exercises]


def test_the_cells_that_raise_do_not_stop_jupyter(read: Read) -> None:
    """Those that raise on purpose, and the checks of exercises that are not solved yet."""
    lesson = read(
        GRADIENT + EXERCISE + '\n# %% raises="ValueError"\nint("x")\n', expected=ORACLE + HALVES
    )
    made = handed_out(lesson)
    tagged = {
        cell.id: "raises-exception" in cell.metadata.get("tags", [])
        for made_of in (
            notebook.lesson_notebook(prepare(made, "en")),
            notebook.workbook(made, "en"),
        )
        for cell in made_of.cells
        if cell.cell_type == "code"
    }
    raising = [cell.id for cell in lesson.notebook.cells if "raises" in cell.metadata]
    assert [name for name, is_tagged in tagged.items() if is_tagged] == [
        *raising,
        *checks_of(tagged),
    ]


@pytest.mark.kernel
def test_a_blank_fails_and_its_solution_passes(
    read: Read, execute: Execute, tmp_path: Path
) -> None:
    """In an environment with only torch, NumPy, matplotlib and Jupyter."""
    prove(read(GRADIENT + EXERCISE, expected=ORACLE + HALVES), execute, tmp_path)


@pytest.mark.kernel
@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_the_course_s_blanks_fail_and_their_solutions_pass(
    name: str, execute: Execute, tmp_path: Path
) -> None:
    """Each exercise of each lesson, in both languages' notebooks."""
    prove(reader.read(LESSONS / f"{name}.py"), execute, tmp_path)


@pytest.mark.kernel
@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_s_own_notebook_runs_elsewhere(
    name: str, execute: Execute, tmp_path: Path
) -> None:
    """In an empty folder, with blanks and ranks, to its end: the cells that raise on purpose do not
    stop it, and no others raise."""
    lesson = reader.read(LESSONS / f"{name}.py")
    path = tmp_path / "alone" / f"{name}.ipynb"
    path.parent.mkdir()
    own = notebook.lesson_notebook(prepare(handed_out(lesson), "zh"))
    path.write_text(notebook.text_of(own), "utf-8")
    executed = execute(path)
    declared = {cell.id for cell in executed.cells if "raises" in cell.metadata}
    assert errors(executed).keys() == declared
