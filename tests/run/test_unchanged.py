"""What `invoke run` does not do again: executing, judging and making handouts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ORACLE, Invoke, files, write_lesson
from tests.run.conftest import command, count_attempts

pytestmark = pytest.mark.kernel


def test_an_unchanged_run_imports_nothing_that_only_others_need(verified: Path) -> None:
    """It ends before any of these libraries could be loaded."""
    for _ in range(2):  # the first run after an execution renews the course page
        timed = [sys.executable, "-X", "importtime", *command()[1:]]
        done = subprocess.run(timed, cwd=verified, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ci.run.run" in imported
    assert not imported & {"numpy", "nbformat", "rich", "jsonschema", "typst", "pypandoc"}
    assert not imported & {"ci.execute.engine", "ci.judge.verdicts", "ci.handout.handout"}


def test_an_unchanged_run_is_not_executed_again(verified: Path, run: Invoke) -> None:
    """Its handouts and the course page stay the same, unless `--fresh` is given."""
    before = files(verified / "build/handouts")
    status, output = run()
    assert (status, count_attempts(verified)) == (0, 1)
    assert re.search(
        r"01_small: unchanged since 20\d\d-\d\d-\d\d \d\d:\d\d UTC, checks 1/1", output
    )
    after = files(verified / "build/handouts")
    assert {name for name in after if after[name] != before[name]} == {"index.json"}
    status, output = run("--fresh")
    assert (status, count_attempts(verified), "unchanged" in output) == (0, 2, False), output


def test_missing_handouts_are_made_from_the_last_attempt(verified: Path, run: Invoke) -> None:
    """The files are identical, and no kernel starts."""
    before = files(verified / "build/handouts/zh")
    shutil.rmtree(verified / "build/handouts")
    status, output = run()
    assert (status, count_attempts(verified), "unchanged since" in output) == (0, 1, True)
    assert files(verified / "build/handouts/zh") == before


def test_a_changed_oracle_judges_without_a_kernel(verified: Path, run: Invoke) -> None:
    """A wrong oracle fails the build, and the right one verifies it, with one execution."""
    write_lesson(verified, expected=ORACLE.replace("4 * np", "6 * np"))
    status, output = run()
    assert (status, count_attempts(verified)) == (1, 1)
    assert "check 'gradient' largest difference 6" in output
    write_lesson(verified, expected=ORACLE)
    status, output = run()
    assert (status, count_attempts(verified)) == (0, 1)
    assert "01_small: verified (executed 20" in output


def test_a_modified_attempt_is_executed_again(verified: Path, run: Invoke) -> None:
    """Its notebook is not the one that was verified."""
    (notebook,) = (verified / "build/runs").glob("*/*/*/executed.ipynb")
    notebook.write_text(notebook.read_text().replace("4.", "5.", 1))
    status, output = run()
    assert (status, count_attempts(verified), "unchanged" in output) == (0, 2, False), output


def test_clean_keeps_the_attempts_of_the_course(
    verified: Path, run: Invoke, invoke: Invoke
) -> None:
    """Runs of a sweep are removed, and the course stays unchanged."""
    run("-p", "size=2,3")
    assert (invoke("clean")[0], count_attempts(verified)) == (0, 1)
    assert "unchanged since" in run()[1]
