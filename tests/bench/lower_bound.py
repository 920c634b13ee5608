"""The lower bound: executes notebooks in plain Python, without Jupyter, kernels and messages.

`python -P lower_bound.py [--preload] NOTEBOOK...` writes the executed notebooks to out/. With
`--preload`, it first imports what they share.
"""

import ast
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

PRELOAD = ("torch", "torch._dynamo", "torch.distributed", "matplotlib.pyplot")


def execute(notebook: dict[str, Any]) -> None:
    """Execute the cells of a notebook, and add the value that each check shows."""
    # Like a kernel's, this module has no file: with a file, a lesson's ranks would import it again.
    module = sys.modules["__main__"] = ModuleType("__main__")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            value = run_cell("".join(cell["source"]), vars(module))
            save_figures()
            if value is not None and "check" in cell["metadata"]:
                shown = {"output_type": "execute_result", "data": {"text/plain": repr(value)}}
                cell["outputs"] = [shown]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run the statements of a cell; the value of its last line if that is an expression."""
    *statements, last = ast.parse(source).body or [ast.Pass()]
    if not isinstance(last, ast.Expr):
        return exec(source, names)
    exec(compile(ast.Module(statements, []), "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def save_figures() -> None:
    """Draw the open figures as SVG, and close them, as a kernel does after each cell."""
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        for number in pyplot.get_fignums():
            pyplot.figure(number).savefig(io.StringIO(), format="svg", bbox_inches="tight")
        pyplot.close("all")


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    for name in PRELOAD if "--preload" in sys.argv else ():
        import_module(name)
    for name in [name for name in sys.argv[1:] if name != "--preload"]:
        notebook = json.loads(Path(name).read_text(encoding="utf-8"))
        execute(notebook)
        Path("out", name).write_text(json.dumps(notebook), encoding="utf-8")
