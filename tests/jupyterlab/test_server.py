"""`invoke lab` without an engine: what a lab is given, and how a container's fault is reported."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.errors import CourseError, MachineError
from ci.jupyterlab import copies, server
from ci.lab import containers, docker_engine, image
from ci.lab.image import Image
from tests.conftest import DOCKER, EXERCISE, Write
from tests.jupyterlab.conftest import free_port


def test_a_lab_gets_no_solution(write: Write, tmp_path: Path) -> None:
    """Nor a file that might contain one; packages and data are there."""
    lessons = write(EXERCISE, expected="").parent
    for name in ("01_small.py~", "01_small.ipynb", ".01_small.py.swp", "data.csv", "own/a.py"):
        (lessons / name).parent.mkdir(exist_ok=True)
        (lessons / name).write_text("" if name[0] in "do" else EXERCISE)
    given = server.blank_solutions(lessons, tmp_path / ".lessons")
    assert sorted(path.name for path in given) == ["01_small.py", "data.csv", "own"]
    assert b"onehalf" not in (tmp_path / ".lessons/01_small.py").read_bytes()


def test_a_students_copy_has_the_blank(write: Write, tmp_path: Path) -> None:
    """The copy follows the blanked lesson when that changes."""
    lessons = write(EXERCISE, expected="").parent
    for task in ("Halve 0", "Cut 0"):
        write(EXERCISE.replace("Halve 0", task), expected="")
        server.blank_solutions(lessons, tmp_path / ".lessons")
        assert copies.update(tmp_path / ".lessons", tmp_path / "mine") == []
        copied = b"".join(p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file())
        assert b"onehalf" not in copied
        assert b"halves = ..." in copied
        assert task.encode() in copied


def test_a_lesson_that_may_hide_a_solution_opens_no_lab(write: Write, tmp_path: Path) -> None:
    """A misspelt tag is named before any script is written."""
    lessons = write(EXERCISE.replace('"solution"', '"solutions"'), expected="").parent
    with pytest.raises(CourseError, match="did you mean 'solution'"):
        server.blank_solutions(lessons, tmp_path / ".lessons")
    assert not list((tmp_path / ".lessons").glob("*.py"))


@dataclass
class Broken:
    """A container whose output ends in an error."""

    error: type[Exception]

    def lines(self) -> Iterator[str]:
        """One line."""
        yield "starting\n"
        raise self.error

    def ending(self) -> str:
        """As the engine's silence is reported."""
        return "is gone, or the engine is"

    def close(self) -> None:
        """Nothing is left to close."""


Opened = Callable[..., Any]


@pytest.fixture
def opened(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """The lines of `invoke lab`, and the command and options of its container.

    The caller is an ordinary user, the engine is a replacement, and the container is `Broken`.
    """
    lessons = write().parent

    def opened(
        *security: str, bridge: bool = True, error: type[Exception] = ConnectionResetError
    ) -> Any:
        networks = [SimpleNamespace(name="bridge")] if bridge else []
        client = SimpleNamespace(
            info=lambda: {"MemTotal": 2**30, "SecurityOptions": security},
            networks=SimpleNamespace(list=lambda: networks),
            containers=SimpleNamespace(list=lambda **_: []),
        )
        started: list[Any] = []

        def start(image: str, command: list[str], options: dict[str, Any]) -> Broken:
            started.extend([command, options])
            return Broken(error)

        monkeypatch.setattr(threading, "excepthook", lambda _: None)  # it would fail the test
        monkeypatch.setattr(os, "getuid", lambda: 4000)
        monkeypatch.setattr(docker_engine, "connect", lambda: nullcontext(client))
        monkeypatch.setattr(image, "find", lambda *_: Image("image", "sha256:1", "cpu"))
        monkeypatch.setattr(containers, "Container", start)
        folder, port = tmp_path / "lab", str(free_port())
        lines: list[str] = []
        try:
            for line in server.serve(lessons, folder, DOCKER, port=port, gpus="none"):
                lines.append(line)
        except MachineError as fault:
            lines.append(str(fault))
        for thread in threading.enumerate():
            if "read_ahead" in thread.name:
                thread.join()
        return lines, *started

    return opened


@pytest.mark.parametrize("error", [ConnectionResetError, ValueError])
def test_a_reader_that_fails_ends_the_command(opened: Opened, error: type[Exception]) -> None:
    """Instead of waiting forever for lines that nobody reads."""
    lines, _, _ = opened(error=error)
    assert lines[1:] == ["starting", "JupyterLab is gone, or the engine is"]


@pytest.mark.parametrize(("security", "user"), [("name=rootless", "0:0"), ("name=userns", "4000")])
def test_in_a_rootless_engine_the_student_is_root(opened: Opened, security: str, user: str) -> None:
    """Root is the caller there and owns the folder; JupyterLab has to allow root."""
    _, command, options = opened(security)
    assert options["user"].startswith(user)
    assert ("--allow-root" in command) == (user == "0:0")


def test_a_rootless_engine_without_a_bridge_opens_no_lab(opened: Opened) -> None:
    """Its host network is not this machine's: no browser here would find the port."""
    (lines,) = opened("name=rootless", bridge=False)
    assert lines[0].startswith("this rootless Docker engine has no bridge")
