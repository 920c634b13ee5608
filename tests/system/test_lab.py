"""Real containers: that none is left behind, their output, and what an engine refuses."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci.errors import MachineError
from ci.lab import containers
from ci.lab.containers import GIB, Container
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.plan.gpus import Gpu
from tests.conftest import DOCKER, ROOT, Write, eventually
from tests.machine_parts import containers_named, missing

HANGS = "# %%\nimport time; time.sleep(600 if size == 2 else 0)\n"


@pytest.fixture
def hanging(lab_image: Image, write: Write, tmp_path: Path) -> Path:
    """A course whose lesson hangs with size=2, and is unchecked with other sizes."""
    write(HANGS)
    (tmp_path / "docker").symlink_to(DOCKER)
    shutil.copy(ROOT / "tasks.py", tmp_path)
    return tmp_path


def command(*words: str) -> list[str]:
    """`invoke run --on lab` with this interpreter."""
    return [sys.executable, "-m", "invoke", "run", "--on", "lab", *words]


def invoke(course: Path, *words: str) -> tuple[int, str]:
    """The exit status and output of `invoke run --on lab`."""
    done = subprocess.run(command(*words), cwd=course, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def start(course: Path, is_ready: Callable[[], object]) -> subprocess.Popen[str]:
    """Start `invoke run` of the hanging lesson, and wait until its container is ready."""
    process = subprocess.Popen(
        command("-p", "size=2"),
        cwd=course,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert eventually(is_ready, 60)
    return process


def is_made() -> bool:
    """Whether the lesson's container exists."""
    return bool(containers_named("01_small"))


def is_running() -> bool:
    """Whether the lesson's container has started."""
    with connect() as client:
        return bool(client.containers.list(filters={"name": "01_small"}))


@pytest.mark.parametrize("is_ready", [is_made, is_running])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_container(
    hanging: Path, number: signal.Signals, is_ready: Callable[[], bool]
) -> None:
    """Exit status 1 at once, also while Python starts inside, and one line at the end."""
    process = start(hanging, is_ready)
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < containers.END_S
    assert process.returncode == 1
    assert output.strip().splitlines()[-1] == "interrupted; nothing was published"
    assert containers_named("01_small") == []


def test_a_killed_run_leaves_a_container_that_ends_and_is_swept(hanging: Path) -> None:
    """No cleanup follows a SIGKILL, but the worker notices that its input has ended."""
    process = start(hanging, is_running)
    process.kill()
    process.communicate()
    assert eventually(lambda: not is_running(), 30)
    (left,) = containers_named("01_small")
    status, output = invoke(hanging, "-p", "size=3")
    assert status == 1
    assert f"removed {left}, left by a run that was killed" in output
    assert containers_named("01_small") == []


def test_the_container_of_a_running_process_is_no_orphan(lab_image: Image) -> None:
    """Two invocations at once leave each other's containers alone."""
    options = containers.hardened_options(GIB, user="1000:1000")
    with_us = Container(lab_image.id, ["sleep", "60"], {**options, "name": "pytorch-course-ours"})
    try:
        with connect() as client:
            assert "pytorch-course-ours" not in containers.remove_orphans(client)
        assert containers_named("pytorch-course-ours") == ["pytorch-course-ours"]
    finally:
        with_us.close()
        list(with_us.lines())
    assert containers_named("pytorch-course-ours") == []


def test_a_container_that_cannot_start_is_not_left(lab_image: Image) -> None:
    """The engine creates it before it looks up the user."""
    options = {
        **containers.hardened_options(GIB, user="nobody-here"),
        "name": "pytorch-course-none",
    }
    with pytest.raises(MachineError, match="nobody-here"):
        Container(lab_image.id, ["true"], options)
    assert containers_named("pytorch-course-none") == []


def test_lines_arrive_whole_however_they_were_written(lab_image: Image) -> None:
    """In pieces, between two bytes of a character, or beside standard error."""
    script = r"printf 'a \344'; sleep 0.3; printf '\270\255 b\n'; echo no >&2; echo c; exit 7"
    container = Container(
        lab_image.id, ["bash", "-c", script], containers.hardened_options(GIB, user="1000:1000")
    )
    try:
        assert list(container.lines()) == ["a 中 b\n", "c\n"]
        assert container.ending() == "was gone, exit status 7 (no)"
    finally:
        container.close()


@pytest.fixture
def bare_engine(docker_engine: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An engine without NVIDIA's hook, with an empty image."""
    if os.getuid() != 0 or not shutil.which("dockerd"):
        missing("root and dockerd")
    with tempfile.TemporaryDirectory() as folder:  # pytest's path is too long for sockets
        options = ["--no-hook", "--iptables=false", "--bridge=none"]
        subprocess.run([ROOT / "tests/engine/start", folder, *options], check=True)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        try:
            subprocess.run("tar -c -T /dev/null | docker import - empty", shell=True, check=True)
            yield
        finally:
            os.kill(int(Path(folder, "pid").read_text()), signal.SIGTERM)
            assert eventually(lambda: not Path(folder, "pid").exists(), 30)


def test_an_engine_without_nvidias_hook_gets_its_remedy(bare_engine: None) -> None:
    """Instead of `could not select device driver`."""
    gpu = Gpu("0", "GPU-0", "A GPU")
    with pytest.raises(MachineError, match="install the NVIDIA Container Toolkit"):
        Container("empty", ["x"], containers.hardened_options(GIB, user="1000:1000", gpus=[gpu]))
    assert containers_named("") == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try to be somebody else")
def test_a_user_without_permission_gets_the_remedy(docker_engine: None) -> None:
    """To join the socket's group, whose members have root: the message says so."""
    os.seteuid(65534)
    try:
        with pytest.raises(MachineError, match="join the group 'docker'"), connect():
            pass
    finally:
        os.seteuid(0)
