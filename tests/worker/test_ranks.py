"""The fork server of ranks outside a kernel, as `invoke prove` uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """\
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from ci.worker import ranks
ranks.stand_by(lambda: sys.modules.setdefault("known_to_the_fork", sys))()
{before}
with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
    print(pool.submit(eval, {asked!r}).result())
"""
FORKED = "'known_to_the_fork' in __import__('sys').modules"
# As torchrun does, which has a fork server of its own:
NESTED = f"""[
    pool.submit(eval, {FORKED!r}).result()
    for futures in [__import__("concurrent.futures").futures]
    for context in [__import__("multiprocessing").get_context("forkserver")]
    for pool in [futures.ProcessPoolExecutor(1, context)]
][0]"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are not forked here")


def asked(folder: Path, expression: str, before: str = "", **variables: str) -> str:
    """The value of an expression in a rank, as text."""
    command = [sys.executable, "-c", PROGRAM.format(before=before, asked=expression)]
    environment = {**os.environ, "TMPDIR": str(folder), **variables}
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip()


def test_ranks_are_forked(tmp_path: Path) -> None:
    """They know what the process had imported."""
    assert asked(tmp_path, FORKED) == "True"


def test_ranks_of_ranks_are_forked(tmp_path: Path) -> None:
    """A second fork server is a fork, too."""
    assert asked(tmp_path, NESTED) == "True"


@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_are_limited_as_in_a_fresh_process(tmp_path: Path, threads: str) -> None:
    """Although the fork has read the variable before."""
    before = f"import torch, os; os.environ['OMP_NUM_THREADS'] = '{threads}'"
    assert asked(tmp_path, "__import__('torch').get_num_threads()", before) == threads


def test_another_python_on_the_path_is_not_used(tmp_path: Path) -> None:
    """For example a shim that changes the environment."""
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\nexit 7\n")
    shim.chmod(0o755)
    assert asked(tmp_path, FORKED, PATH=str(tmp_path)) == "True"


@pytest.mark.parametrize("change", ["['NEW'] = '1'", ".pop('HOME')"])
def test_variables_that_imports_may_have_read_must_be_the_same(tmp_path: Path, change: str) -> None:
    """Else ranks come from a fresh process."""
    assert asked(tmp_path, FORKED, f"import os; os.environ{change}") == "False"


def test_the_folder_may_be_another(tmp_path: Path) -> None:
    """Ranks start in that of the process that asks for them."""
    before = f"import os; os.chdir({str(tmp_path)!r})"
    assert asked(tmp_path, FORKED, before, PYTHONPATH=str(ROOT)) == "True"
    found = asked(tmp_path, "__import__('os').getcwd()", before, PYTHONPATH=str(ROOT))
    assert found == str(tmp_path)
