"""Questions to other programs, which may be missing, fail or hang."""

import os
import time
from pathlib import Path

import psutil
import pytest

from ci.errors import MachineError
from ci.machine import program
from tests.conftest import eventually


def hanging(folder: Path) -> str:
    """A program that starts another one and waits for it, forever."""
    path = folder / "hangs"
    path.write_text(f"#!/bin/sh\nsleep 600.{os.getpid()} &\nwait\n")
    path.chmod(0o755)
    return str(path)


def is_asleep() -> bool:
    """Whether the program that `hanging` starts still runs."""
    words = ["sleep", f"600.{os.getpid()}"]
    return any(process.info["cmdline"] == words for process in psutil.process_iter(["cmdline"]))


def test_a_program_answers() -> None:
    """With its exit status and both of its outputs."""
    done = program.ask("sh", "-c", "echo yes; echo no >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "yes\n", "no\n")


def test_a_program_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started; the error names it."""
    monkeypatch.setattr(program, "TIMEOUT_S", 0.5)
    with pytest.raises(MachineError, match="^hangs gave no answer in 0.5 s$"):
        program.ask(hanging(tmp_path))
    assert eventually(lambda: not is_asleep())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is left behind
def test_a_program_that_cannot_be_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stuck in a driver survives SIGKILL; here, nothing is sent."""
    kill, groups = os.killpg, []
    monkeypatch.setattr(program, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(os, "killpg", lambda *words: groups.append(words))
    began = time.monotonic()
    with pytest.raises(MachineError):
        program.ask(hanging(tmp_path))
    assert time.monotonic() - began < 10
    kill(*groups[0])


@pytest.mark.parametrize("command", [("no-such-program",), ("false",), ("sleep", "600")])
def test_no_answer_is_an_empty_one(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a program that is missing, that fails, or that hangs."""
    monkeypatch.setattr(program, "TIMEOUT_S", 0.2)
    assert program.answer(*command) == ""


def test_an_answer_is_stripped() -> None:
    """As a word of a message."""
    assert program.answer("echo", "yes") == "yes"
