"""The layout of the project, which keeps later traps shut."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for path in (ROOT / "ci").rglob("*.py") if path.stem != "__init__")
INSIDE = [  # run beside the lesson, in the lab too
    *(path for path in MODULES if path.parent.name in ("worker", "lesson")),
    *(ROOT / "ci" / name for name in ("errors.py", "machine/atomic.py")),
    *(ROOT / "ci" / name for name in ("doctor/probe.py", "jupyterlab/copies.py")),
]


def named(path: Path) -> str:
    """`worker/kernel.py`."""
    return str(path.relative_to(ROOT / "ci"))


def imports(path: Path) -> set[str]:
    """The modules that a file imports, functions' imports too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_each_module_says_what_it_holds(module: Path) -> None:
    """A module begins with its docstring."""
    assert ast.get_docstring(ast.parse(module.read_text()))


@pytest.mark.parametrize("module", INSIDE, ids=named)
def test_what_runs_beside_the_lesson_needs_no_tools(module: Path) -> None:
    """The lab's image has no converter, no terminal table, no Docker SDK."""
    tops = {found.partition(".")[0] for found in imports(module)}
    assert not tops & {"invoke", "docker", "nbconvert", "rich", "typst", "pypandoc"}


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_nothing_in_the_pipeline_imports_torch_at_start(module: Path) -> None:
    """A host that drives the lessons does not pay for torch, or need it."""
    tree = ast.parse(module.read_text())
    top = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
    assert "torch" not in top


def test_only_the_lab_imports_the_docker_sdk() -> None:
    """Everything else speaks to the engine through it."""
    assert {path.parent.name for path in MODULES if "docker" in imports(path)} == {"lab"}


def test_data_flows_forward() -> None:
    """Each package imports only those before it: the contracts of import-linter in pyproject."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_docker_holds_no_python() -> None:
    """A docker/*.py would take the place of the Docker SDK."""
    assert not list((ROOT / "docker").rglob("*.py"))


def test_lessons_know_nothing_of_the_pipeline() -> None:
    """A student's copy runs with torch, NumPy and matplotlib."""
    for path in (ROOT / "lessons").glob("*.py"):
        assert not {name for name in imports(path) if name.partition(".")[0] == "ci"}, path.name
