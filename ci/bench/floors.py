"""What a course can't be executed cheaper than: its cells, in a plain Python process.

`python -P -m ci.bench.floors [--preload] NOTEBOOK…` executes the notebooks of this folder, one
after the other, as a kernel would: the value of a check's last line as text, figures as SVG. It
leaves `NOTEBOOK.json`, what the checks have shown. One notebook a process is the floor `scripts`;
all of them in one that imports first what they share is the floor `process`.
"""

import ast
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ci.worker.import_path import add_after_standard_library

PRELOAD = ("torch", "torch._dynamo", "torch.distributed", "matplotlib.pyplot")


def execute(notebook: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Execute a notebook's cells in a module of their own; what each check has shown."""
    module = ModuleType("__main__")
    # Ranks import the main module anew where it has a file: this one has none, like a kernel's.
    sys.modules["__main__"] = module
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        value = run(cell["source"], vars(module))
        draw()
        if value is not None and "check" in cell["metadata"]:
            yield cell["metadata"]["check"], text(value)


def run(source: str | list[str], names: dict[str, Any]) -> Any:
    """Run the statements of a cell; the value of its last line, where that is an expression."""
    tree = ast.parse("".join(source))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return None


def text(value: Any) -> str:
    """A value as a notebook shows it, but for where its lines break."""
    if isinstance(value, type):
        home = "" if value.__module__ == "builtins" else f"{value.__module__}."
        return home + value.__qualname__
    if type(value) is tuple:
        return f"({', '.join(map(text, value))}{',' * (len(value) == 1)})"
    if type(value) is list:
        return f"[{', '.join(map(text, value))}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{text(key)}: {text(of)}' for key, of in value.items())}}}"
    return repr(value)


def draw() -> None:
    """Set the open figures, and close them, as a kernel does after each cell."""
    if not (pyplot := sys.modules.get("matplotlib.pyplot")):
        return
    for number in pyplot.get_fignums():
        pyplot.figure(number).savefig(io.StringIO(), format="svg", bbox_inches="tight")
    pyplot.close("all")


def main(arguments: list[str]) -> None:
    """Execute the notebooks that the command line names."""
    # As in a kernel, a lesson's neighbours come after the standard library.
    add_after_standard_library(os.getcwd())  # noqa: PTH109
    if "--preload" in arguments:
        arguments.remove("--preload")
        for name in PRELOAD:
            import_module(name)
    for name in arguments:
        path = Path(name)
        shown = dict(execute(json.loads(path.read_text(encoding="utf-8"))))
        path.with_suffix(".json").write_text(json.dumps(shown), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
