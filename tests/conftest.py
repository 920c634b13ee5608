"""A small course of one's own: scripts and oracles in a temporary folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ci import course
from ci.course import Lesson

HEADER = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 1}
#     parameters: {size: {min: 2, max: 64}}
# ---

# %% [markdown] lang="en"
# # A lesson
# %% [markdown] lang="zh"
# # 一课
# %% tags=["parameters"]
size: int = 4  # length of the vector
# %%
import numpy as np
"""

GRADIENT = """\
# %% check="gradient"
4.0 * np.arange(size)
"""

ORACLE = '''\
import numpy as np
from ci.check import expect


@expect(dtype="float64")
def gradient(size):
    """dy/dx_i = 4 x_i."""
    return 4 * np.arange(size, dtype=float)
'''


@pytest.fixture
def poppler() -> None:
    """pdftotext, a system part: without it a test is skipped, and in CI it fails."""
    if not shutil.which("pdftotext"):
        (pytest.fail if "CI" in os.environ else pytest.skip)("needs poppler-utils")


Write = Callable[..., Path]
Read = Callable[..., Lesson]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a lesson (and its oracles, unless empty) into `tmp_path/lessons`; its path."""

    def write(
        cells: str = GRADIENT, *, header: str = HEADER, expected: str = "", name: str = "01_small"
    ) -> Path:
        path = tmp_path / "lessons" / f"{name}.py"
        oracles = tmp_path / "lessons" / "expected" / f"{name}.py"
        oracles.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + cells, encoding="utf-8")
        if expected:
            oracles.write_text(expected, encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(write: Write) -> Read:
    """Write a lesson as `write` does, and read it."""

    def read(cells: str = GRADIENT, **options: str) -> Lesson:
        return course.read(write(cells, **options))

    return read
