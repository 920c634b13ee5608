"""Contenders that no command line offers: `python -P contenders.py NAME ARGUMENT...`.

`memory` is a part of the pipeline, `pool` is a competitor, `plain` the lower bounds.
Imports are local, because each contender pays for its own.
"""

import ast
import io
import json
import linecache
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def memory(answer: str) -> None:
    """Write to a JSON file how many MB a run has for itself after its imports."""
    import psutil

    from ci.execute import engine
    from ci.execute.events import CellStarted
    from ci.execute.local import LocalExecutor
    from ci.lesson import reader
    from ci.plan import planner

    (path,) = Path("lessons").resolve().glob("*.py")
    lesson = reader.read(path)
    for event in engine.execute(planner.runs([lesson], [], []), Path("runs"), LocalExecutor()):
        cells = lesson.notebook.cells
        if isinstance(event, CellStarted) and "import torch" in cells[event.cell - 2].source:
            (server,) = psutil.Process().children()
            private = sum(p.memory_full_info().uss for p in server.children(recursive=True))
            Path(answer).write_text(json.dumps({"private_mb": private / 1e6}))


def pool(jobs: str) -> None:
    """Execute the notebooks of this folder into out/, in a pool that imports Papermill once."""
    from functools import partial
    from multiprocessing import get_context

    from papermill import execute_notebook

    calls = [(path.name, f"out/{path.name}") for path in sorted(Path().glob("*.ipynb"))]
    with get_context("fork").Pool(int(jobs)) as processes:
        processes.starmap(partial(execute_notebook, progress_bar=False), calls, chunksize=1)


def plain(*names: str) -> None:
    """Execute notebooks in this process into out/, without Jupyter, kernels and messages."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    for name in names:
        notebook = json.loads(Path(name).read_text(encoding="utf-8"))
        # As in a kernel, this module has no file: else a lesson's ranks would import the file.
        module = sys.modules["__main__"] = ModuleType("__main__")
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                value = _run_cell("".join(cell["source"]), vars(module))
                if value is not None and "check" in cell["metadata"]:
                    shown = {"output_type": "execute_result", "data": {"text/plain": repr(value)}}
                    cell["outputs"] = [shown]
        Path("out", name).write_text(json.dumps(notebook), encoding="utf-8")


def _run_cell(source: str, names: dict[str, Any]) -> Any:
    *statements, last = ast.parse(source).body or [ast.Pass()]
    shown = last.value if isinstance(last, ast.Expr) else None
    rest = statements if shown else [*statements, last]
    file = f"<cell {hash(source)}>"  # where `inspect` finds the source, as in a kernel
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    exec(compile(ast.Module(rest, []), file, "exec"), names)
    value = eval(compile(ast.Expression(shown), file, "eval"), names) if shown else None
    if pyplot := sys.modules.get("matplotlib.pyplot"):  # draws its figures, as a kernel does
        for number in pyplot.get_fignums():
            pyplot.figure(number).savefig(io.StringIO(), format="svg", bbox_inches="tight")
        pyplot.close("all")
    return value


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
