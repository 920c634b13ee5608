"""`invoke run` in a small course, in the process of the tests or in its own."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ORACLE, ROOT, Invoke, write_lesson


def command(*words: str) -> list[str]:
    """The command `invoke run` with this interpreter."""
    return [sys.executable, "-m", "invoke", "run", "--on", "here", *words]


@pytest.fixture
def run(invoke: Invoke) -> Invoke:
    """`invoke run` on this machine, in this process."""
    return partial(invoke, "run", "--on", "here")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A course after its first run, with the exit status and the output of the run."""
    folder = tmp_path_factory.mktemp("published") / "course"
    write_lesson(folder, expected=ORACLE)
    shutil.copy(ROOT / "tasks.py", folder)
    done = subprocess.run(command(), cwd=folder, capture_output=True, text=True, timeout=300)
    shutil.copytree(folder, folder.with_name("copy"))
    return folder, done.returncode, done.stdout + done.stderr


@pytest.fixture
def verified(
    published: tuple[Path, int, str], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """This course as its first run left it, and the folder in which `invoke` runs.

    Its results are valid only in this folder.
    """
    folder = published[0]
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    monkeypatch.chdir(folder)
    return folder


def count_attempts(course: Path) -> int:
    """The number of executions."""
    return len(list((course / "build/runs").glob("*/*/*")))
