"""The command line, called in the process of the tests."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.main import program

from tests.conftest import ORACLE, ROOT, Write

Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def course(tmp_path: Path, write: Write) -> Path:
    """A course of one lesson with the project's tasks."""
    shutil.copy(ROOT / "tasks.py", tmp_path)
    write(expected=ORACLE)
    return tmp_path


@pytest.fixture
def invoke(
    course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Invoke]:
    """`invoke` in this process: its exit status and what it prints."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(course)

    def run(*words: str) -> tuple[int, str]:
        try:
            program.run(["invoke", *words])
        except SystemExit as ended:
            return int(ended.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
