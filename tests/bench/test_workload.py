"""What every contender gets: the same notebooks, threads and seeds."""

import os
from pathlib import Path

import nbformat
import pytest

from ci.lesson import oracle, reader
from tests.bench import benchmark
from tests.bench.benchmark import SMALL
from tests.bench.conftest import ROOT
from tests.bench.fakes import fake
from tests.bench.report import Row
from tests.conftest import GRADIENT, ORACLE, Read, Write


def test_competitors_get_notebooks_with_parameters_and_without_errors(read: Read) -> None:
    """Papermill stops at a cell that raises, so exactly the declared type is caught."""
    lesson = read('# %% raises="ValueError"\nint("a")\n' + GRADIENT)
    made = benchmark.notebook(lesson.notebook, 3)
    nbformat.validate(made)
    sources = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert sources[0] == "size: int = 4  # length of the vector\nseed = 3"
    assert sources[2] == 'try:\n    int("a")\nexcept ValueError as error:\n    print(error)'
    assert 'int("a")' in [cell.source for cell in lesson.notebook.cells]


def test_contenders_have_the_same_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own setting reaches none of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    variables = benchmark.environment(Row("r", "a row", []), fake("a"), tmp_path)
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "4"
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_part_of_a_sweep_is_its_beginning(tmp_path: Path) -> None:
    """The runs have the same names and seeds as in the whole sweep."""
    benchmark.prepare([SMALL / "09_regression.py"], ROOT, tmp_path / "work", seeds=3)
    notebooks = sorted((tmp_path / "work" / "notebooks").glob("*.ipynb"))
    assert [path.stem[-4:] for path in notebooks] == ["-001", "-002", "-003"]
    assert "seed = 2" in notebooks[1].read_text()
    row = Row("r", "a row", [fake("a"), fake("part", first=2)], seeds=3)
    options = [benchmark.environment(row, each, tmp_path)["OPTIONS"] for each in row.contenders]
    assert options == ["-p seed=1,2,3", "-p seed=1,2"]


def test_a_workload_holds_the_chosen_lessons(write: Write, tmp_path: Path) -> None:
    """As notebooks, with what they import; the notebooks have no expected values."""
    wanted = write(expected=ORACLE)
    write(name="02_other", expected=ORACLE)
    (wanted.parent / "parallel").mkdir()
    (wanted.parent / "parallel" / "ring.py").write_text("a = 1\n")
    benchmark.prepare([wanted], ROOT, tmp_path / "work")
    lessons, notebooks = tmp_path / "work" / "lessons", tmp_path / "work" / "notebooks"
    assert (lessons / "expected" / "01_small.py").exists()
    assert (notebooks / "parallel" / "ring.py").exists()
    assert not (notebooks / "expected").exists()
    assert not list(notebooks.glob("*.py"))
    assert [path.name for path in notebooks.glob("*.ipynb")] == ["01_small-000.ipynb"]


def test_the_small_lesson_is_a_lesson() -> None:
    """Each of its checks has an oracle."""
    lesson = reader.read(SMALL / "09_regression.py")
    assert {*oracle.load(lesson)} == {check.name for check in lesson.checks}
    assert [*lesson.parameters] == ["seed", "size", "steps", "lr"]
