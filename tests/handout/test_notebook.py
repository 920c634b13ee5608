"""The notebooks that students open: what they hold, and that they run without the course."""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from ci.handout import notebook
from ci.handout.editions import EDITIONS, INSTRUCTORS, Edition
from ci.handout.handout import Handout, prepare
from ci.handout.translations import translations
from ci.judge import verdicts
from ci.judge.outcome import Answer, Outcome
from ci.lesson import oracle, reader
from ci.lesson.expect import Rule
from ci.lesson.lesson import Lesson, find_lessons
from ci.lesson.parameters import Value
from ci.lesson.value import expected_value
from ci.plan.planner import Run
from tests.conftest import EXERCISE, GRADIENT, HALVES, HEADER, ORACLE, ROOT, Read

LESSONS = ROOT / "lessons"
NAMES = [path.stem for path in find_lessons(LESSONS)]
WITH_EXERCISES = [path.stem for path in find_lessons(LESSONS) if '"exercise"' in path.read_text()]
ALONE = ["torch", "numpy", "matplotlib", "ipykernel", "nbclient"]


def handed_out(
    lesson: Lesson, parameters: Mapping[str, Value] | None = None, **changes: Any
) -> Handout:
    """The handout of a run of the lesson, with the expected values of its exercises."""
    values = parameters or lesson.defaults
    answers = verdicts.exercise_answers(lesson, oracle.load(lesson), values)
    outcome = Outcome(Run(lesson, values), "verified", notebook=lesson.notebook, answers=answers)
    return replace(Handout(outcome, {}), **changes)


def write(made: Handout, folder: Path) -> list[Path]:
    """Write its workbook in both languages; the paths."""
    paths = [folder / f"{language}.ipynb" for language in ("en", "zh")]
    folder.mkdir(exist_ok=True)
    for path in paths:
        path.write_text(notebook.text_of(notebook.workbook(made, path.stem)), "utf-8")
    return paths


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with an exercise in it."""
    return read(GRADIENT + EXERCISE, expected=ORACLE + HALVES)


def sources(made: Handout, language: str = "en") -> dict[str, str]:
    """The cells of its workbook, by id."""
    return {cell.id: cell.source for cell in notebook.workbook(made, language).cells}


def test_it_has_what_blanks_need_and_nothing_else_of_the_lesson(lesson: Lesson) -> None:
    """Title, the check's own code, parameters, setup, then task, blank and check."""
    cells = notebook.workbook(handed_out(lesson), "en").cells
    assert [cell.source.splitlines()[0] for cell in cells if cell.id != "check-answer"] == [
        "# A lesson · Exercises",
        "size: int = 4  # length of the vector",
        "import numpy as np",
        "### 1. Halves",
        "halves = ...",
        "check_answer(",
    ]


def test_a_check_expects_the_values_of_the_run(lesson: Lesson) -> None:
    """For its parameters, which are in the notebook, with all digits."""
    texts = [*sources(handed_out(lesson, parameters={"size": 2})).values()]
    assert "size: int = 2  # length of the vector" in texts
    assert texts[-1] == (
        'check_answer("halves", halves, np.array([0.0, 0.5], dtype="float64"), dtype="float64")'
    )


def test_each_language_has_its_own_words(lesson: Lesson) -> None:
    """Title, task, and the messages of the check."""
    chinese = "\n".join(sources(handed_out(lesson), "zh").values())
    assert "# 一课 · 练习" in chinese
    assert "把 0 到 size - 1 减半。" in chinese
    assert 'language="zh"' in chinese
    assert "Halve 0" not in chinese


def test_instructors_get_the_solution(lesson: Lesson) -> None:
    """In the place of the blank, in a file of another name."""
    made = handed_out(lesson, edition=INSTRUCTORS)
    assert made.workbook == "01_small_solutions.ipynb"
    assert "onehalf = 0.5  # hiddenway\nhalves = onehalf * np.arange(size)\nhalves" in (
        sources(made).values()
    )
    assert "halves = ...\nhalves" not in sources(made).values()


def test_a_draft_says_so_in_its_exercises_too(lesson: Lesson) -> None:
    """Below the title."""
    made = handed_out(lesson, notes=[{"en": "Not verified.", "zh": "未经验证。"}])
    assert "> **未经验证。**" in sources(made, "zh")["title"]


def test_it_runs_on_the_lesson_s_own_device(read: Read) -> None:
    """Even if the course ran on a GPU, since students may have none."""
    header = HEADER.replace("size: int", 'device: str = "cpu"\nsize: int')
    lesson = read(GRADIENT + EXERCISE, header=header, expected=ORACLE + HALVES)
    made = handed_out(lesson, parameters={"device": "cuda:0", "size": 2})
    assert 'device: str = "cpu"\nsize: int = 2  # length of the vector' in sources(made).values()


@pytest.mark.parametrize("edition", EDITIONS)
def test_its_files_are_valid_and_reproducible(
    lesson: Lesson, tmp_path: Path, edition: Edition
) -> None:
    """Ids do not change from one publication to the next."""
    made = handed_out(lesson, edition=edition)
    paths = write(made, tmp_path)
    before = [path.read_bytes() for path in paths]
    assert made.workbook == f"01_small_{edition.workbook}.ipynb"
    for path in paths:
        found = nbformat.read(path, as_version=4)
        nbformat.validate(found)
        assert (found.nbformat, found.nbformat_minor) == (4, 5)
    assert [path.read_bytes() for path in write(made, tmp_path)] == before


def test_a_lesson_without_exercises_has_none(read: Read) -> None:
    """Nor has a lesson with exercises whose expected values are not known."""
    assert handed_out(read(GRADIENT, expected=ORACLE)).workbook == ""
    made = handed_out(read(GRADIENT + EXERCISE, expected=ORACLE + HALVES))
    assert made.workbook
    assert replace(made, outcome=replace(made.outcome, answers={})).workbook == ""


@pytest.mark.parametrize(
    "value",
    [
        np.array([1 / 3, np.nan, -np.inf, 5e-324]),
        np.array([[1 + 2j, complex(0, np.inf)]]),
        np.zeros((2, 0), dtype="float32"),
        np.float32(0.1),
        np.array(True),
        {"a": [1, 2.5, float("-inf")], "b": ("text", True), "c": {}},
    ],
)
def test_an_expected_value_keeps_all_of_its_digits(value: Any) -> None:
    """Its source evaluates to the same value, bit by bit."""
    expected = expected_value(value)
    again = expected_value(eval(notebook.literal(expected), {"np": np}))
    for one, other in zip(expected.leaves(), again.leaves(), strict=True):
        assert (one.kind, one.dtype) == (other.kind, other.dtype)
        np.testing.assert_array_equal(one.value, other.value)
        assert np.shape(one.value) == np.shape(other.value)


def test_a_check_has_the_rule_of_its_oracle() -> None:
    """Its tolerance and dtype; defaults are left out."""
    answer = Answer(expected_value(1.5), Rule(rel=1e-3, abs=1e-6, why="rough", elementwise=True))
    assert notebook.check_call("x", answer, {}, "en") == (
        'check_answer("x", x, 1.5, rel=0.001, absolute=1e-06, elementwise=True)'
    )
    for value, option in (
        (np.ones(1), ', dtype="float64"'),
        (1.5, ""),
        (np.ones(1, "float32"), ""),
    ):
        expected = expected_value(value)
        call = notebook.check_call("x", Answer(expected, Rule()), {"dtype": "float64"}, "en")
        assert call == f'check_answer("x", x, {notebook.literal(expected)}{option})'


# The lesson's own modules

LABELS = translations("en")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with a subpackage, and a module, beside a lesson."""
    (tmp_path / "parallel/inner").mkdir(parents=True)
    (tmp_path / "parallel/__init__.py").write_text("")
    (tmp_path / "parallel/network.py").write_text("SIZE = 1\n")
    (tmp_path / "parallel/inner/deep.py").write_text("%magic = 'ö'\n", encoding="utf-8")
    (tmp_path / "alone.py").write_text("A = 2\n")
    return tmp_path


def code(source: str) -> NotebookNode:
    """A code cell."""
    return new_code_cell(source, id="own")


def test_a_package_is_written_whole(folder: Path) -> None:
    """A rank may import modules that the cell does not import."""
    cells = with_modules([code("from parallel.network import SIZE")], folder)
    assert [cell.source.splitlines()[0] for cell in cells[2:-1]] == [
        "%%writefile parallel/__init__.py",
        "%%writefile parallel/inner/deep.py",
        "%%writefile parallel/network.py",
    ]


@pytest.mark.parametrize(
    "source", ["import torch\nimport numpy as np", "%matplotlib inline", "x ="]
)
def test_other_imports_write_nothing(folder: Path, source: str) -> None:
    """Installed packages, magics, and cells that are not Python."""
    cells = [code(source), new_markdown_cell("import alone")]
    assert with_modules(cells, folder) == cells


def test_the_files_are_written_before_the_first_import(folder: Path) -> None:
    """After their folders, with an explanation for the reader."""
    cells = [code("import torch"), code("def f():\n    import alone, parallel.network"), code("1")]
    made = with_modules(cells, folder)
    assert [cell.source.splitlines()[0] for cell in made] == [
        "import torch",
        LABELS["files"],
        "from pathlib import Path",
        "%%writefile alone.py",
        "%%writefile parallel/__init__.py",
        "%%writefile parallel/inner/deep.py",
        "%%writefile parallel/network.py",
        "def f():",
        "1",
    ]
    assert 'Path("parallel/inner").mkdir(parents=True, exist_ok=True)' in made[2].source


def test_a_notebook_with_files_is_valid(folder: Path) -> None:
    """Each cell has a unique id that nbformat accepts."""
    cells = with_modules([code("import parallel")], folder)
    nbformat.validate(new_notebook(cells=cells))
    assert len({cell.id for cell in cells}) == len(cells)


def with_modules(cells: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    """The cells, with those that write modules of the folder."""
    return notebook.with_modules(cells, folder, LABELS)


# Where the course is not installed

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


def prove(lesson: Lesson, execute: Execute, folder: Path) -> None:
    """Each check of a lesson's workbook fails with the blank and passes with the solution."""
    made = handed_out(lesson)
    assert made.workbook, "its expected values are not known"
    blank = execute(write(made, folder / "blank")[0])
    assert len(checks(blank)) == len(lesson.exercises)
    raised = errors(blank)
    assert list(raised) == checks(blank), raised
    assert all(text.startswith("AssertionError: ✗ ") for text in raised.values()), raised

    solved = execute(write(replace(made, edition=INSTRUCTORS), folder / "solved")[1])
    assert errors(solved) == {}
    ticks = [c.outputs[0].text for c in solved.cells if c.id in checks(solved)]
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


def test_the_executed_cells_are_numbered_from_1(lesson: Lesson) -> None:
    """Cells that only the course needs leave no gap."""
    made = handed_out(lesson)
    assert made.outcome.notebook
    code = [cell for cell in made.outcome.notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        cell.execution_count = 2 * number + 3
        cell.outputs = [new_output("execute_result", {"text/plain": "1"}, execution_count=9)]
    executed = [cell for cell in prepare(made, "en").cells if cell.get("execution_count")]
    code = executed
    assert [cell.execution_count for cell in executed] == [*range(1, len(code) + 1)]
    assert [c.outputs[0].execution_count for c in executed] == [c.execution_count for c in executed]


@pytest.mark.kernel
def test_a_blank_fails_and_its_solution_passes(
    lesson: Lesson, execute: Execute, tmp_path: Path
) -> None:
    """In an environment with only torch, NumPy, matplotlib and Jupyter."""
    prove(lesson, execute, tmp_path)


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
