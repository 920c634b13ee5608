"""A lesson cannot show what comes from a file whose changes nobody would notice.

The cases are from this project's own reviews.
"""

import os
from pathlib import Path

import pytest

from ci.lesson import reader
from tests.conftest import Executed, executed, write_lesson

pytestmark = pytest.mark.kernel

DATA = "2\n"


def run(folder: Path, source: str) -> Executed:
    """The execution of a lesson with this cell."""
    return executed(reader.read(write_lesson(folder, f"# %%\n{source}\n")))


@pytest.mark.parametrize(
    "source",
    [
        'open("../data.csv").read()',
        'import os; os.open("../data.csv", os.O_RDONLY)',
        'import numpy as np; np.loadtxt("../data.csv")',
        'import sys; sys.path.append(".."); import helper',
    ],
)
def test_a_file_outside_is_refused(tmp_path: Path, source: str) -> None:
    """The line names the file and says what to do."""
    (tmp_path / "data.csv").write_text(DATA)
    (tmp_path / "helper.py").write_text("x = 1")
    reason = run(tmp_path, source).reason
    assert reason.startswith(f"PermissionError: {tmp_path}/")
    assert "nobody would notice that it changed: move it into" in reason


@pytest.mark.parametrize(
    "source",
    [
        'open("data.csv").read()',
        'open("linked/data.csv").read()',
        'import tempfile; open(tempfile.mkdtemp() + "/mine", "w").close()',
        'import torch; torch.save(1, "../mine.pt"); torch.load("../mine.pt")',
        'open("/etc/hostname").read()',
    ],
)
def test_other_files_are_read(tmp_path: Path, source: str) -> None:
    """Those of the lessons' folder, linked ones too, of the system, and what the lesson wrote."""
    for folder in ("lessons", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_text(DATA)
        os.utime(tmp_path / folder / "data.csv", (1, 1))
    (tmp_path / "lessons/linked").symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path, source).reason == ""
