"""What a result depends on: each change of it is seen, and by no more keys than it concerns."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ci.execute.container import ContainerExecutor
from ci.execute.local import LocalExecutor
from ci.lab.image import Image
from ci.plan import keys, planner
from ci.plan.gpus import Gpu
from ci.plan.keys import Keys
from ci.plan.planner import Run
from tests.conftest import ORACLE, Read


@pytest.mark.parametrize("names", [keys.EXECUTES, keys.JUDGES_AND_RENDERS])
def test_what_the_keys_cover_is_there(names: tuple[str, ...]) -> None:
    """A package that was renamed is renamed in the list too."""
    assert all((keys.CODE / name).exists() for name in names)


@pytest.fixture
def run(read: Read) -> Run:
    """A run of a lesson with a rank program, an oracle, and a neighbour."""
    neighbour = read(name="02_neighbour").path
    (neighbour.parent / "parallel").mkdir()
    (neighbour.parent / "parallel" / "ring.py").write_text("a = 1\n")
    lesson = read(expected=ORACLE)
    (neighbour.parent / "expected" / "02_neighbour.py").write_text(ORACLE)
    return planner.Run(lesson, lesson.defaults)


def now(run: Run, executor: str = "local") -> Keys:
    """Its keys as things are now."""
    return keys.run_keys(run, keys.environment({"executor": executor}))


def moved(before: Keys, after: Keys) -> list[str]:
    """Which keys are another."""
    return [name for name in ("execution", "handout") if vars(before)[name] != vars(after)[name]]


ALL = ["execution", "handout"]

CHANGES: dict[str, list[str]] = {
    "01_small.py": ALL,
    "parallel/ring.py": ALL,
    "parallel/new.py": ALL,
    "data/table.csv": ALL,
    "_own.py": ALL,
    "matplotlibrc": ALL,
    "expected/01_small.py": ["handout"],
    "expected/01_small.csv": ["handout"],
    "expected/table.csv": ["handout"],
    "02_neighbour.py": [],
    "expected/02_neighbour.py": [],
    ".01_small.py.swp": [],
    "parallel/__pycache__/ring.pyc": [],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_changes_the_keys_of_what_it_is_for(run: Run, name: str) -> None:
    """The lesson, what it may read, what it must show; not its neighbours, nor hidden files."""
    before, path = now(run), run.lesson.path.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}# more\n")
    assert moved(before, now(run)) == CHANGES[name]


def test_a_file_that_is_gone_changes_the_key(run: Run) -> None:
    """As one that was changed."""
    before = now(run)
    (run.lesson.path.parent / "parallel" / "ring.py").unlink()
    assert moved(before, now(run)) == ALL


def test_a_linked_folder_is_read(run: Run, tmp_path: Path) -> None:
    """Data that lies elsewhere belongs to the lesson, and a link in a circle comes to an end."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "table.csv").write_text("1")
    (run.lesson.path.parent / "data").symlink_to(tmp_path / "elsewhere")
    (run.lesson.path.parent / "circle").symlink_to(run.lesson.path.parent)
    before = now(run)
    (tmp_path / "elsewhere" / "table.csv").write_text("2")
    assert moved(before, now(run)) == ALL


def test_another_lesson_that_a_lesson_names_counts(run: Run) -> None:
    """It might import it, or read it."""
    folder = run.lesson.path.parent
    (folder / "parallel" / "ring.py").write_text('import_module("02_neighbour")\n')
    before = now(run)
    with (folder / "02_neighbour.py").open("a") as neighbour:
        neighbour.write("# more\n")
    assert moved(before, now(run)) == ALL


def test_a_lesson_that_was_changed_since_it_was_read_has_no_key_of_either(run: Run) -> None:
    """The text that was read and the file count both."""
    before = now(run)
    text = run.lesson.path.read_text()
    run.lesson.path.write_text(text + "# more\n")
    assert now(run) != now(replace(run, lesson=replace(run.lesson, digest="0" * 64))) != before


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
def test_another_run_has_another_key(run: Run, change: Callable[[Run], Run]) -> None:
    """Threads, parameters, the kind of GPU and their number are of the run."""
    h100 = replace(run, gpus=(Gpu("1", "GPU-b", "NVIDIA H100"),))
    changed = change(run)
    assert moved(now(run), now(changed)) == ALL
    same_kind = [gpu.name for gpu in changed.gpus] == ["NVIDIA H100"]
    assert (moved(now(h100), now(changed)) == []) == same_kind


def test_another_place_has_another_key(run: Run) -> None:
    """Results of the lab are not results of this machine."""
    assert moved(now(run), now(run, "container")) == ALL


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
def test_our_code_counts_for_what_it_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: list[str]
) -> None:
    """A byte of the kernel is of the run, one of a comparison of its verdict, one of a template of
    its handouts."""
    copy = shutil.copytree(keys.CODE, tmp_path / "ci")
    monkeypatch.setattr(keys, "CODE", copy)
    before = now(run)
    with (copy / name).open("a") as code:
        code.write("\n")
    assert moved(before, now(run)) == expected


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a torch in it, before all others that packages are found in."""
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
def test_another_torch_is_another_place(site: Path, name: str) -> None:
    """By its record, its own word, and its libraries; paths that are added count too."""
    before = LocalExecutor().facts()
    (site / name).write_text("another")
    assert LocalExecutor().facts() != before


def test_a_package_without_a_record_counts_by_its_version(site: Path) -> None:
    """As a system's packager leaves it."""
    (site / "torch-9.0.dist-info" / "RECORD").unlink()
    (site / "torch-9.0.dist-info" / "METADATA").write_text("Version: 9.0")
    before = LocalExecutor().facts()
    (site / "torch-9.0.dist-info" / "METADATA").write_text("Version: 9.1")
    assert LocalExecutor().facts() != before


def test_packages_here_are_of_the_verdict_where_the_run_is_elsewhere(run: Run, site: Path) -> None:
    """NumPy of this machine compares what the lab has shown."""
    before = now(run, "container")
    (site / "torch-9.0.dist-info" / "RECORD").write_text("another")
    assert moved(before, now(run, "container")) == ["handout"]


def test_settings_of_libraries_count_and_others_do_not() -> None:
    """What is set for each run anyway is no setting of the caller's."""
    noise = {"TERM": "xterm", "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1"}
    settings = {"MKL_CBWR": "AVX2", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "PYTHONPATH": "/a"}
    assert keys.settings({**noise, **settings}) == settings


def test_the_lab_is_its_image_its_user_and_what_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known before a worker starts, on a host without torch and without an engine."""
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
