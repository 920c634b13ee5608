"""How `invoke lab` starts, ends, and starts again."""

import os
import re
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ci.lab import containers
from tests.jupyterlab.conftest import LESSON, Engine, invoke, opened_lab


def test_a_students_changes_stay(host_engine: Engine, course: Path) -> None:
    """A second start names changed lessons, and updates the unchanged copies."""
    first = opened_lab(host_engine, course)
    model = {"type": "file", "format": "text", "content": "print('mine')\n"}
    assert first.ask(f"/api/contents/{LESSON}", method="PUT", data=model)[0] == 200
    assert first.end(signal.SIGINT)[0] == 0
    for path in (course / "lessons" / LESSON, course / "lessons/parallel/launch.py"):
        path.write_text(path.read_text() + "# new in the course\n")

    second = opened_lab(host_engine, course)
    assert f"{LESSON} has changed in the course; your copy stays" in second.output
    assert second.ask(f"/api/contents/{LESSON}?type=file")[1]["content"] == "print('mine')\n"
    assert second.end(signal.SIGINT)[0] == 0
    mine = course / "build/lab"
    assert (mine / LESSON).read_text() == "print('mine')\n"
    assert (mine / "parallel/launch.py").read_text().endswith("# new in the course\n")
    assert {path.stat().st_uid for path in mine.rglob("*")} == {os.getuid() or containers.STUDENT}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_lab(host_engine: Engine, course: Path, number: int) -> None:
    """Also with a running kernel: status 0, and no container is left."""
    opened = opened_lab(host_engine, course)
    opened.ask("/api/kernels", method="POST", data={"name": "python3"})
    status, output = opened.end(number)
    assert (status, opened.containers()) == (0, [])
    assert "Traceback" not in output


def test_shutting_down_in_the_menu_ends_the_command(host_engine: Engine, course: Path) -> None:
    """The menu sends this request."""
    opened = opened_lab(host_engine, course)
    assert opened.ask("/api/shutdown", method="POST")[0] == 200
    assert (opened.ended()[0], opened.containers()) == (0, [])


def test_the_container_of_a_killed_command_is_removed_by_the_next(
    host_engine: Engine, course: Path
) -> None:
    """Before it needs the port, which the leftover may still hold; a line reports it."""
    killed = opened_lab(host_engine, course)
    (left,) = killed.containers()
    killed.end(signal.SIGKILL)
    assert killed.containers() == [left]
    opened = opened_lab(host_engine, course, urlsplit(killed.url).port or 0)
    assert f"removed {left}, left by a command that was killed" in opened.output
    assert killed.containers() == []
    assert opened.end(signal.SIGINT)[0] == 0


def test_a_port_that_is_taken_is_the_machines_fault(host_engine: Engine, course: Path) -> None:
    """One line says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = invoke(host_engine, course, port)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert output.splitlines() == [
        f"port {port}: Address already in use: choose another with --port"
    ]


def test_a_lab_that_does_not_start_shows_its_last_line(host_engine: Engine, course: Path) -> None:
    """The last line of its errors, status 3, and no container."""
    (course / "build/lab/.lessons.json").mkdir(parents=True)
    process = invoke(host_engine, course)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    last = output.splitlines()[-1]
    assert re.fullmatch(r"JupyterLab was gone, exit status 1 \(IsADirectoryError: .*\)", last)
    assert host_engine.containers(process) == []
