"""The fork server of ranks outside a kernel, as `invoke prove` uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """\
import multiprocessing, sys
from ci.worker import ranks
ranks.stand_by(lambda: sys.modules.setdefault("known_to_the_fork", sys))()
{before}
context = multiprocessing.get_context("forkserver")
with context.Pool(1) as pool:
    print(pool.apply(eval, ("'known_to_the_fork' in __import__('sys').modules",)))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are not forked here")


def forked(folder: Path, before: str = "", **variables: str) -> bool:
    """Whether a rank is forked from the fork that stands by."""
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    environment = {**os.environ, "TMPDIR": str(folder), **variables}
    done = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    return bool(done.strip() == "True")


def test_ranks_are_forked(tmp_path: Path) -> None:
    """They know what the process had imported."""
    assert forked(tmp_path)


def test_another_python_on_the_path_is_not_used(tmp_path: Path) -> None:
    """For example a shim that changes the environment."""
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\nexit 7\n")
    shim.chmod(0o755)
    assert forked(tmp_path, PATH=str(tmp_path))


@pytest.mark.parametrize(
    "before", ["import os; os.environ['NEW'] = '1'", "import os; os.chdir('/')"]
)
def test_what_imports_may_have_read_must_be_the_same(tmp_path: Path, before: str) -> None:
    """Else ranks come from a fresh process."""
    assert not forked(tmp_path, before, PYTHONPATH=str(ROOT))
