"""The layout of the project, which keeps later traps shut."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "ci").glob("*.py") if path.stem != "__init__")
INSIDE = {
    "worker",
    "execute",
    "kernel",
    "warm",
    "nursery",
    "probe",
    "copies",
}  # run beside the lesson, in the lab too


def imports(path: Path) -> set[str]:
    """The modules that a file imports, functions' imports too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_each_module_says_what_it_holds(module: str) -> None:
    """A module begins with its docstring."""
    assert ast.get_docstring(ast.parse((ROOT / "ci" / f"{module}.py").read_text()))


@pytest.mark.parametrize("module", sorted(INSIDE))
def test_what_runs_beside_the_lesson_needs_no_tools(module: str) -> None:
    """The lab's image has no converter, no terminal table, no Docker SDK."""
    seen, waiting = set(), {f"ci.{module}"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = ROOT / f"{name.replace('.', '/')}.py"
        if path.exists():
            waiting |= {found for found in imports(path) if found.startswith("ci.")} - seen
            tops = {found.partition(".")[0] for found in imports(path)}
            assert not tops & {"invoke", "docker", "nbconvert", "rich", "typst", "pypandoc"}, name


def test_nothing_in_the_pipeline_imports_torch_at_start() -> None:
    """A host that drives the lessons does not pay for torch, or need it."""
    for module in MODULES:
        tree = ast.parse((ROOT / "ci" / f"{module}.py").read_text())
        top = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
        assert "torch" not in top, module


def test_docker_holds_no_python() -> None:
    """A docker/*.py would take the place of the Docker SDK."""
    assert not list((ROOT / "docker").rglob("*.py"))


def test_lessons_know_nothing_of_the_pipeline() -> None:
    """A student's copy runs with torch, NumPy and matplotlib."""
    for path in (ROOT / "lessons").glob("*.py"):
        assert not {name for name in imports(path) if name.partition(".")[0] == "ci"}, path.name
