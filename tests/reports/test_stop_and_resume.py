"""`-x` stops at the first failure, and `--failed` runs what failed.

The cases are from this project's own reviews.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import GRADIENT, ORACLE, Invoke, Write

WRONG = GRADIENT.replace("4.0", "6.0")
SLOW = "# %%\nimport time; time.sleep(600)\n" + GRADIENT


def run(course: Path, *words: str) -> tuple[int, str, list[str]]:
    """Status and output of `invoke run`, and the runs in its report."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "run", "--on", "here", *words],
        cwd=course,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    report = json.loads((course / "build/report.json").read_text("utf-8"))
    return done.returncode, done.stdout, [each["lesson"] for each in report["runs"]]


@pytest.mark.kernel
def test_a_stopped_run_is_resumed_where_it_failed(
    course: Path, write: Write, invoke: Invoke
) -> None:
    """The lesson beside it is ended and the one after it never starts; `--failed` runs one."""
    write(WRONG, expected=ORACLE)
    write(SLOW, expected=ORACLE, name="02_slow")
    write(GRADIENT, expected=ORACLE, name="03_later")
    status, output, reported = run(course, "-x", "--jobs", "2")
    assert (status, reported) == (1, ["01_small"]), output
    assert "-x: stopped at the first failure, 01_small" in output
    assert not [path for path in (course / "build/runs").glob("0[23]_*/*/*") if path.name[0] != "."]

    write(expected=ORACLE)
    status, output, reported = run(course, "--failed")
    assert (status, reported) == (0, ["01_small"]), output
    assert invoke("run", "--failed") == (
        2,
        "--failed: none of these lessons failed in the last run\n",
    )
