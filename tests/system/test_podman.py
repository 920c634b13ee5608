"""Podman in the place of Docker: its API, recorded, behind a socket."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import DOCKER, ORACLE, ROOT, write_lesson
from tests.doctor.conftest import smi

# Of Podman 4.3.1, shortened, by the last part of the path of a request:
ANSWERS = {
    "version": {
        **{"Version": "4.3.1", "ApiVersion": "1.41", "MinAPIVersion": "1.24"},
        "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}],
    },
    "info": {
        **{"MemTotal": 25273397248, "NCPU": 2, "CpuCfsQuota": True, "DockerRootDir": "/nowhere"},
        **{"MemoryLimit": True, "PidsLimit": True},
        "SecurityOptions": ["name=seccomp,profile=default"],
    },
    "json": [],  # images, and containers
}


class Podman(BaseHTTPRequestHandler):
    """Answers GET requests."""

    def address_string(self) -> str:
        """A Unix socket has no address."""
        return ""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send the recorded answer."""
        name = self.path.partition("?")[0].rpartition("/")[2]
        body = json.dumps(ANSWERS[name]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A course on a machine with two GPUs where Podman answers."""
    write_lesson(tmp_path, expected=ORACLE)
    (tmp_path / "docker").symlink_to(DOCKER)
    shutil.copy(ROOT / "tasks.py", tmp_path)
    uuid = f"GPU-podman-{os.getpid()}"  # which no other test leases at the same time
    smi(tmp_path, driver="580.95.05", capability="9.0", uuid=uuid)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with TemporaryDirectory() as folder:  # pytest's path is too long for a socket
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/podman.sock")
        with ThreadingUnixStreamServer(f"{folder}/podman.sock", Podman) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield tmp_path
            server.shutdown()


def invoke(course: Path, *words: str) -> tuple[int, str]:
    """The exit status and output of a command."""
    command = [sys.executable, "-m", "invoke", *words]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_run_with_gpus_is_refused(course: Path) -> None:
    """In one line: Podman would ignore the request, and the lessons would run on the CPU."""
    status, output = invoke(course, "run", "--on", "lab", "--gpus", "1")
    assert (status, len(output.splitlines())) == (3, 1)
    assert output.startswith("Podman's API gives no GPUs to containers: use Docker's own engine")


def test_a_lab_with_gpus_is_refused(course: Path) -> None:
    """In one line, too."""
    status, output = invoke(course, "lab", "--gpus", "1")
    assert (status, len(output.splitlines())) == (3, 1)
    assert output.startswith("Podman's API gives no GPUs to containers")


def test_the_doctor_names_it(course: Path) -> None:
    """No test runs lessons on it."""
    status, output = invoke(course, "doctor", "--on", "lab", "--gpus", "none")
    assert status == 3
    text = " ".join(output.split())
    assert "Docker engine warn 4.3.1, API 1.41, Podman; anyone who can use it has root" in text
    assert "Podman: tried by hand, no test runs on it" in text
