"""Bytecode that Python takes for current, because the source has the same size and time.

Cases without an address are from this project's own reviews.
"""

import os
import py_compile
import shutil
from pathlib import Path

import pytest

from tests.conftest import ORACLE, ROOT, Invoke, Write

RIGHT, WRONG = "FACTOR = 4.0\n", "FACTOR = 6.0\n"
PROGRAM = "from own.helper import FACTOR\n\ndef factor(device):\n    return FACTOR\n"
LESSON = """\
# %%
from own import programs
from own.helper import FACTOR
from parallel import launch
# %% check="gradient"
FACTOR * np.arange(size)
# %% check="by_a_rank"
launch(programs.factor, 1)[0]
"""
BY_A_RANK = '''

@expect(constant="a factor")
def by_a_rank():
    """d(4x)/dx."""
    return 4.0
'''


def leave_stale_bytecode(helper: Path) -> None:
    """Compile a wrong version, and write the right one with the same size and time."""
    helper.write_text(WRONG)
    os.utime(helper, (1e9, 1e9))
    py_compile.compile(str(helper), doraise=True)
    helper.write_text(RIGHT)
    os.utime(helper, (1e9, 1e9))


# https://github.com/python/cpython/issues/75953
@pytest.mark.kernel
def test_a_kernel_and_its_ranks_import_the_source(
    course: Path, write: Write, invoke: Invoke
) -> None:
    """A run with fresh executions removes bytecode beside lessons, and leaves none."""
    write(LESSON, expected=ORACLE + BY_A_RANK)
    lessons, own = course / "lessons", course / "lessons/own"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lessons/parallel", lessons / "parallel", ignore=without)
    own.mkdir()
    (own / "__init__.py").touch()
    (own / "programs.py").write_text(PROGRAM)
    leave_stale_bytecode(own / "helper.py")
    status, printed = invoke("run", "--fresh")
    assert status == 0, printed
    assert not list(lessons.rglob("__pycache__"))
