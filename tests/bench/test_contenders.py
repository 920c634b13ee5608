"""The lower bounds, which execute notebooks without a kernel."""

import json
import sys
from pathlib import Path

import pytest

from tests.bench import contenders


def test_the_lower_bound_shows_what_a_kernel_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saves and closes figures and finds sources; the last line of a cell is its value."""
    cells = [
        {"cell_type": "markdown", "source": "prose", "metadata": {}},
        code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nassert plt.get_fignums()"),
        code("plt.get_fignums()", "left"),
        code("x = 1", "nothing"),
        code("for i in [x]:\n    y = i\ny, 'z'", "pair"),
        code("def f(): pass"),
        code("import inspect\ninspect.getsource(f)", "source"),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "out").mkdir()
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    contenders.plain("a.ipynb")
    cells = json.loads((tmp_path / "out" / "a.ipynb").read_text())["cells"]
    shown = [cell["outputs"][0]["data"]["text/plain"] for cell in cells if cell.get("outputs")]
    assert shown == ["[]", "(1, 'z')", "'def f(): pass'"]


def code(source: str, check: str = "") -> dict[str, object]:
    """A code cell, with a check if it is named."""
    metadata = {"check": check} if check else {}
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}
