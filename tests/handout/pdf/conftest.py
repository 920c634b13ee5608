"""A handout of a small lesson as a PDF, and what a reader of PDFs finds in it."""

import base64
import io
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pypdf
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook, new_output

from ci.handout.exporters import HandoutPDFExporter
from ci.handout.handout import Handout, prepare
from ci.judge.outcome import Outcome, Result
from ci.lesson.lesson import Check, Lesson
from ci.plan.planner import Run
from tests.conftest import Read

LESSON = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown] lang="en"
# # Gradients
#
# An English sentence about **slopes**, $\\nabla f \\odot x$, and its
# [documentation](https://docs.pytorch.org/docs/stable/autograd.html) at <https://pytorch.org/>.
#
# ## Derive it
#
# | a | b |
# |---|---|
# | 1 | $x_2$ |

# %% [markdown] lang="zh"
# # 梯度
#
# 一句关于**斜率**的中文，$\\nabla f \\odot x$。
#
# ## 推导

# %% check="gradient"
2 * size

# %% given="draws"
draws

# %% raises="ValueError"
int("x")

# %% tags=["figure"]
drawn_by_this_line()

# %% [markdown] lang="en"
# **Figure.** The slope of $x^2$ at `x`, **rising**.

# %% [markdown] lang="zh"
# **图**。$x^2$ 的斜率。

# %%
print("hello")
"""
RESULTS = (
    Result(
        Check("gradient", "value", "cell-2", 20),
        "verified",
        shown="8.0",
        expected="8.000001",
        derivation="dy/dx = 2 `size`.",
        tolerance="2e-6 rel",
        margin=0.25,
        devices=("cpu",),
    ),
    Result(Check("draws", "given", "cell-3", 23), "given", shown="[7 7]"),
    Result(
        Check("raises_at_line_26", "raises", "cell-4", 26, "ValueError"),
        "verified",
        shown="ValueError",
        expected="ValueError",
        derivation="The cell must raise ValueError.",
        tolerance="exact",
        margin=0.0,
    ),
)
FACTS = {"torch": "2.13.0+cpu", "device": "cpu (a small one)", "date": "2026-11-23 21:05 UTC"}
Make = Callable[..., Handout]


def png() -> str:
    """A red picture, 400 by 200."""
    parts = [
        (b"IHDR", struct.pack(">2I5B", 400, 200, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * 400) * 200)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def text(content: str) -> NotebookNode:
    """An output of a print."""
    return new_output("stream", text=content)


def shown(kind: str, content: str) -> NotebookNode:
    """A displayed output."""
    return new_output("display_data", {kind: content})


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """The lesson above, read."""
    return read(LESSON, header="", name="03_gradients")


@pytest.fixture
def make(lesson: Lesson) -> Make:
    """A handout of the lesson; `outputs` are those of its last cell."""

    def make(
        *outputs: NotebookNode, results: Sequence[Result] = RESULTS, **changes: Any
    ) -> Handout:
        code = [cell for cell in lesson.notebook.cells if cell.cell_type == "code"]
        code[0].outputs = [new_output("execute_result", {"text/plain": "tensor(8.)"})]
        lines = ["Cell In[3], line 1", '----> 1 int("x")', "", "ValueError: no number"]
        code[2].outputs = [
            new_output("error", ename="ValueError", evalue="no number", traceback=lines)
        ]
        code[3].outputs = [shown("image/png", png())]
        code[4].outputs = list(outputs) or [text("hello\n")]
        run = Run(lesson, {})
        outcome = Outcome(run, "verified", tuple(results), notebook=lesson.notebook)
        return replace(Handout(outcome, FACTS), **changes)

    return make


def pdf_of(made: Handout | NotebookNode, language: str = "en") -> bytes:
    """The PDF of a handout, or of any notebook."""
    prepared = prepare(made, language) if isinstance(made, Handout) else made
    return HandoutPDFExporter().from_notebook_node(prepared)[0]


def printed(made: Handout | NotebookNode, language: str = "en") -> pypdf.PdfReader:
    """The PDF, to look inside."""
    return pypdf.PdfReader(io.BytesIO(pdf_of(made, language)))


def pages(read: pypdf.PdfReader) -> list[str]:
    """The words of each page, in one line."""
    return [" ".join(page.extract_text().split()) for page in read.pages]


def prose(*texts: str) -> NotebookNode:
    """A notebook of Markdown cells alone, which is no lesson."""
    return new_notebook(cells=[new_markdown_cell(text) for text in ("# Mine", *texts)])


def poppler_says(command: str, content: bytes, folder: Path, *options: str) -> str:
    """What a tool of poppler prints of a PDF; what it complains of fails the test."""
    path = folder / "handout.pdf"
    path.write_bytes(content)
    line = [command, *options[:-1], str(path), *options[-1:]]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def links(read: pypdf.PdfReader) -> list[tuple[int, int]]:
    """Of each link within the PDF: the page that it is on, and the page that it leads to."""
    found = []
    for number, page in enumerate(read.pages):
        for annotation in page.get("/Annots", []):
            if (target := annotation.get_object().get("/Dest")) is not None:
                place = read.named_destinations[target] if isinstance(target, str) else target
                goal = place["/Page"] if isinstance(target, str) else place.get_object()[0]
                found.append((number, read.get_page_number(goal.get_object())))
    return found
