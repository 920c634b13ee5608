"""The text that a student reads is that of the value that is checked, and that of its own cell.

Cases without an address are from this project's own reviews.
"""

from pathlib import Path

import pytest
from nbformat import NotebookNode

from ci.lesson import reader
from ci.lesson.value import MIME, shown_value
from tests.conftest import executed, write_lesson

pytestmark = pytest.mark.kernel

# Each cell with the text that it shows, and the value that a check reads: None where it reads none.
CELLS = {
    "a subclass of list": (
        'class L(list):\n    __repr__ = lambda self: "[42.0]"\nL([4.0])',
        ("[42.0]", None),
    ),
    "a subclass of dict": (
        'class D(dict):\n    __repr__ = lambda self: "accuracy 100%"\nD(accuracy=0.996)',
        ("accuracy 100%", None),
    ),
    "a subclass of float": (
        'class F(float):\n    __repr__ = lambda self: "42.0"\nF(4.0)',
        ("42.0", None),
    ),
    "a representation of another kind": (
        'class H(list):\n    _repr_html_ = lambda self: "<b>42</b>"\nH([4.0])',
        ("[4.0]", None),
    ),
    "a formatter": (
        "formatters = get_ipython().display_formatter.formatters\n"
        'formatters["text/plain"].for_type(float, lambda number, p, cycle: p.text("42"))\n'
        'formatters["text/html"].for_type(float, lambda number: "<b>42</b>")\n'
        "4.0",
        ("4.0", 4.0),
    ),
    # https://github.com/pytorch/pytorch/issues/9395 (a tensor that looked like zero)
    "a printer": (
        "from IPython.lib import pretty\n"
        'pretty.for_type(list, lambda value, p, cycle: p.text("[42.0]"));\n[4.0]',
        ("[4.0]", [4.0]),
    ),
    "counts without an order": (
        'import collections, numpy as np\ncollections.Counter({"a": np.int64(4)})',
        ("Counter({'a': np.int64(4)})", {"a": 4}),
    ),
    "items without names": (
        "class T(tuple):\n"
        '    _fields = ("a", "a")\n    __repr__ = lambda self: "T(a=1, a=2)"\nT((1, 2))',
        ("T(a=1, a=2)", None),
    ),
    "a magic": ('get_ipython().run_line_magic("precision", "0");\n4.4', ("4.4", 4.4)),
    # https://github.com/numpy/numpy/issues/2188 (0.0001 was shown as 0.)
    "NumPy's options": (
        "import numpy as np\nnp.set_printoptions(precision=0, suppress=True)\nnp.array([0.4, 4.4])",
        ("array([0., 4.])", None),
    ),
    "torch's options": (
        "import torch\ntorch.set_printoptions(precision=0)\ntorch.tensor(4.4)",
        ("tensor(4)", None),
    ),
    "a patched text": (
        "torch.set_printoptions(precision=4)\n"
        'torch.Tensor.__repr__ = lambda self, **_: "tensor(42.)"\n'
        "torch.tensor(4.)",
        ("tensor(4.)", 4.0),
    ),
    "a replaced function": (
        'import builtins\noriginal = repr\nbuiltins.repr = lambda value: "42"\n4',
        ("42", None),
    ),
    "the function again": ("builtins.repr = original\n4", ("4", 4)),
    # https://github.com/ipython/ipython/issues/9969
    "a thread": (
        "import sys, threading, time\n"
        "hook = sys.displayhook\n"
        "thread = threading.Thread(target=lambda: hook(torch.tensor(1.)))\n"
        "thread.start(); time.sleep(0.2); thread.join()\n"
        "None",
        ("", None),
    ),
    "a cell in a thread": (
        "cell = lambda: (time.sleep(0.1), get_ipython().run_cell('time.sleep(0.2)\\n42.0'))\n"
        "thread = threading.Thread(target=cell)\n"
        "thread.start()",
        ("", None),
    ),
    "the cell after it": ("thread.join()\n4.0", ("4.0", 4.0)),
    "a timer": (
        "timer = threading.Timer(0.1, lambda: hook(torch.tensor(1.)))\n"
        "timer.start(); timer.join()\n4.0",
        ("4.0", 4.0),
    ),
    "a call of the hook": ("sys.displayhook(torch.tensor(1.))", ("", None)),
    "a call of the hook before None": ("[sys.displayhook(torch.tensor(1.)), None][1]", ("", None)),
    "another hook": (
        "hook = sys.displayhook\nsys.displayhook = lambda value: hook(42.0)\n4.0",
        ("", None),
    ),
    "a cell in the cell": ('get_ipython().run_cell("42.0")\nNone', ("", None)),
    "a displayed object": ("display(torch.tensor(3.))", ("", None)),
    "a result that is awaited": ("import asyncio\nawait asyncio.sleep(0, 5)", ("5", 5)),
    "the result of a magic": ("%time 5", ("5", 5)),
    "a lone surrogate": (r'"\udcff"', (r"'\udcff'", None)),
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """The executed cells, by name."""
    script = "".join(f"# %%\n{source}\n" for source, _ in CELLS.values())
    lesson = reader.read(write_lesson(tmp_path_factory.mktemp("course"), script))
    verdict = executed(lesson)
    assert verdict.reason == ""
    return dict(zip(CELLS, verdict.notebook.cells[-len(CELLS) :], strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_text_and_value_are_one(cells: dict[str, NotebookNode], name: str) -> None:
    """Where the text could be another one, a check of the cell fails by name."""
    text, value = CELLS[name][1]
    cell = cells[name]
    results = [out for out in cell.outputs if out.output_type == "execute_result"]
    assert [out.data["text/plain"] for out in results] == ([text] if text else [])
    if value is None:
        with pytest.raises(ValueError, match="cannot be read|shows no values"):
            shown_value(cell)
    else:
        assert shown_value(cell).python() == value
        assert results[0].data.keys() == {"text/plain", MIME}


def test_a_text_that_raises_is_the_error_of_its_cell(tmp_path: Path) -> None:
    """With its own type and message, and without a result."""
    source = 'class Bad:\n    def __repr__(self):\n        raise ValueError("no text")\nBad()'
    lesson = reader.read(write_lesson(tmp_path, f"# %%\n{source}\n"))
    verdict = executed(lesson)
    assert verdict.reason == "ValueError: no text"
    assert [out.output_type for out in verdict.notebook.cells[-1].outputs] == ["error"]
