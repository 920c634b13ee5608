"""Keys: each change of an input changes the keys that depend on it, and no others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ci.execute.container import ContainerExecutor
from ci.execute.local import LocalExecutor
from ci.lab.image import Image
from ci.lesson import reader
from ci.plan import keys, planner
from ci.plan.gpus import Gpu
from ci.plan.keys import Keys
from ci.plan.planner import Run
from tests.conftest import ORACLE, Read


@pytest.mark.parametrize("names", [keys.EXECUTES, keys.JUDGES_AND_RENDERS])
def test_the_code_that_keys_cover_exists(names: tuple[str, ...]) -> None:
    """So that nobody renames a package without renaming it here."""
    assert all((keys.CODE / name).exists() for name in names)


@pytest.fixture
def run(read: Read) -> Run:
    """A run of a lesson with a rank program, an oracle and a neighbour."""
    neighbour = read(name="02_neighbour").path
    (neighbour.parent / "parallel").mkdir()
    (neighbour.parent / "parallel" / "ring.py").write_text("a = 1\n")
    lesson = read(expected=ORACLE)
    (neighbour.parent / "expected" / "02_neighbour.py").write_text(ORACLE)
    return planner.Run(lesson, lesson.defaults)


def current_keys(run: Run, executor: str = "local") -> Keys:
    """The keys of `run` with the files as they are now."""
    return keys.run_keys(run, keys.environment({"executor": executor}))


def changed_keys(before: Keys, after: Keys) -> list[str]:
    """The names of the keys that differ."""
    return [name for name in ("execution", "handout") if vars(before)[name] != vars(after)[name]]


ALL = ["execution", "handout"]

CHANGES: dict[str, list[str]] = {
    "01_small.py": ["handout"],  # the file; its code cells are below
    "parallel/ring.py": ALL,
    "parallel/new.py": ALL,
    "data/table.csv": ALL,
    "_own.py": ALL,
    "matplotlibrc": ALL,
    "expected/01_small.py": ["handout"],
    "expected/01_small.csv": ["handout"],
    "expected/table.csv": ["handout"],
    "expected/_shared.py": ["handout"],
    "02_neighbour.py": [],
    "expected/02_neighbour.py": [],
    ".01_small.py.swp": [],
    "parallel/__pycache__/ring.pyc": [],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_changes_the_keys_that_depend_on_it(run: Run, name: str) -> None:
    """The files of the lesson and its oracle, but not its neighbours nor hidden files."""
    before, path = current_keys(run), run.lesson.path.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}# more\n")
    assert changed_keys(before, current_keys(run)) == CHANGES[name]


@pytest.mark.parametrize("oracle", [ORACLE, ORACLE + "# reads pyproject.toml\n"])
def test_the_project_file_is_an_input_of_an_oracle_that_names_it(run: Run, oracle: str) -> None:
    """A changed pin of torch must be judged by the oracle that reads it."""
    (run.lesson.path.parent / "expected" / "01_small.py").write_text(oracle)
    project = run.lesson.path.parents[1] / "pyproject.toml"
    project.write_text("torch==1")
    before = current_keys(run)
    project.write_text("torch==2")
    changed = ["handout"] if oracle != ORACLE else []
    assert changed_keys(before, current_keys(run)) == changed


def test_a_removed_file_changes_the_keys(run: Run) -> None:
    """Like a changed file."""
    before = current_keys(run)
    (run.lesson.path.parent / "parallel" / "ring.py").unlink()
    assert changed_keys(before, current_keys(run)) == ALL


def test_a_linked_folder_is_an_input(run: Run, tmp_path: Path) -> None:
    """Its files belong to the lesson, and a circular link does no harm."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "table.csv").write_text("1")
    (run.lesson.path.parent / "data").symlink_to(tmp_path / "elsewhere")
    (run.lesson.path.parent / "circle").symlink_to(run.lesson.path.parent)
    before = current_keys(run)
    (tmp_path / "elsewhere" / "table.csv").write_text("2")
    assert changed_keys(before, current_keys(run)) == ALL


def test_another_lesson_named_by_a_lesson_is_an_input(run: Run) -> None:
    """The lesson could import or read the other one."""
    folder = run.lesson.path.parent
    (folder / "parallel" / "ring.py").write_text('import_module("02_neighbour")\n')
    before = current_keys(run)
    with (folder / "02_neighbour.py").open("a") as neighbour:
        neighbour.write("# more\n")
    assert changed_keys(before, current_keys(run)) == ALL


def test_only_code_cells_are_executed(run: Run) -> None:
    """A change of prose, or of line numbers, changes the pages and executes nothing."""
    path, before = run.lesson.path, current_keys(run)
    prose_cell = "# %% [markdown]\n# New prose.\n\n# %%"
    path.write_text(path.read_text().replace("# %%", prose_cell, 1))
    prose = current_keys(replace(run, lesson=reader.read(path)))
    assert changed_keys(before, prose) == ["handout"]
    path.write_text(path.read_text() + "# %%\nmore = 1\n")
    assert changed_keys(prose, current_keys(replace(run, lesson=reader.read(path)))) == ALL


def test_a_lesson_that_names_its_script_depends_on_its_prose(run: Run) -> None:
    """Its helper may read the script."""
    path = run.lesson.path
    (path.parent / "parallel" / "ring.py").write_text('open("01_small.py")\n')
    before = current_keys(run)
    path.write_text(path.read_text() + "# more\n")
    assert changed_keys(before, current_keys(run)) == ALL


def test_a_lesson_changed_after_reading_has_a_third_key(run: Run) -> None:
    """Both the text that was read and the file are inputs."""
    before = current_keys(run)
    text = run.lesson.path.read_text()
    run.lesson.path.write_text(text + "# more\n")
    assert (
        current_keys(run)
        != current_keys(replace(run, lesson=replace(run.lesson, digest="0" * 64)))
        != before
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, threads=2),
        lambda run: replace(run, parameters={**run.parameters, "size": 5}),
        lambda run: replace(run, gpus=(Gpu("0", "GPU-a", "NVIDIA H100"),)),
        lambda run: replace(run, gpus=(Gpu("0", "GPU-a", "NVIDIA H200"),)),
        lambda run: replace(run, gpus=(Gpu("0", "a", "NVIDIA H100"), Gpu("1", "b", "NVIDIA H100"))),
    ],
    ids=["threads", "parameter", "a GPU", "another GPU", "two GPUs"],
)
def test_another_run_has_other_keys(run: Run, change: Callable[[Run], Run]) -> None:
    """Threads, parameters, and kind and number of GPUs are inputs."""
    h100 = replace(run, gpus=(Gpu("1", "GPU-b", "NVIDIA H100"),))
    changed = change(run)
    assert changed_keys(current_keys(run), current_keys(changed)) == ALL
    same_kind = [gpu.name for gpu in changed.gpus] == ["NVIDIA H100"]
    assert (changed_keys(current_keys(h100), current_keys(changed)) == []) == same_kind


def test_another_executor_has_other_keys(run: Run) -> None:
    """Results from the lab are not results from this machine."""
    assert changed_keys(current_keys(run), current_keys(run, "container")) == ALL


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, ALL) for name in ("worker/kernel.py", "execute/engine.py", "errors.py")),
        ("judge/compare.py", ["handout"]),
        *((f"handout/{name}", ["handout"]) for name in ("pdf.py", "templates/html/handout.css")),
        ("handout/templates/new.svg", ["handout"]),
        ("report/github.py", []),
    ],
)
def test_the_code_of_each_step_changes_its_keys(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: list[str]
) -> None:
    """For example, kernel code changes both keys, and a template only that of the handouts."""
    copy = shutil.copytree(keys.CODE, tmp_path / "ci")
    monkeypatch.setattr(keys, "CODE", copy)
    before = current_keys(run)
    with (copy / name).open("a") as code:
        code.write("\n")
    assert changed_keys(before, current_keys(run)) == expected


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fake torch, first on the import path."""
    site = tmp_path / "site"
    (site / "torch" / "lib").mkdir(parents=True)
    (site / "torch-9.0.dist-info").mkdir()
    (site / "torch" / "__init__.py").write_text("")
    (site / "torch" / "version.py").write_text("__version__ = '9.0'\n")
    (site / "torch" / "lib" / "libtorch.so").write_text("1")
    (site / "torch-9.0.dist-info" / "RECORD").write_text("torch/__init__.py,sha256=a,1\n")
    monkeypatch.syspath_prepend(site)
    return site


@pytest.mark.parametrize(
    "name", ["torch-9.0.dist-info/RECORD", "torch/version.py", "torch/lib/libtorch.so", "a.pth"]
)
def test_another_torch_changes_the_facts_of_the_executor(site: Path, name: str) -> None:
    """Its RECORD, its version, its libraries, and additional import paths count."""
    before = LocalExecutor().facts()
    (site / name).write_text("another")
    assert LocalExecutor().facts() != before


def test_a_package_without_a_record_is_identified_by_its_version(site: Path) -> None:
    """Some system packages have no RECORD."""
    (site / "torch-9.0.dist-info" / "RECORD").unlink()
    (site / "torch-9.0.dist-info" / "METADATA").write_text("Version: 9.0")
    before = LocalExecutor().facts()
    (site / "torch-9.0.dist-info" / "METADATA").write_text("Version: 9.1")
    assert LocalExecutor().facts() != before


def test_local_packages_change_only_the_handout_key_of_the_lab(run: Run, site: Path) -> None:
    """For example, the local NumPy compares the values that the lab has shown."""
    before = current_keys(run, "container")
    (site / "torch-9.0.dist-info" / "RECORD").write_text("another")
    assert changed_keys(before, current_keys(run, "container")) == ["handout"]


def test_only_variables_that_libraries_read_are_inputs() -> None:
    """Variables that the pipeline sets for each run are not."""
    noise = {"TERM": "xterm", "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1"}
    settings = {"MKL_CBWR": "AVX2", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "PYTHONPATH": "/a"}
    assert keys.settings({**noise, **settings}) == settings


def test_the_lab_is_identified_by_image_user_and_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """These are known before a worker starts, without torch or an engine on the host."""
    monkeypatch.delenv("NCCL_ALGO", raising=False)
    one = ContainerExecutor(Image("lab", "sha256:1", "cpu"), memory=1)
    assert one.facts() == ContainerExecutor(Image("lab", "sha256:1", "cpu"), memory=2).facts()
    assert one.facts() != ContainerExecutor(Image("lab", "sha256:2", "cpu"), memory=1).facts()
    assert (
        one.facts()
        != ContainerExecutor(Image("lab", "sha256:1", "cpu"), memory=1, as_root=True).facts()
    )
    before = one.facts()
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    assert one.facts() != before
