"""A Docker engine that dies in the middle of a run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ci.lab import image
from tests.conftest import DOCKER, ORACLE, ROOT, write_lesson
from tests.machine_parts import missing

# In place of a fork server: the first lesson fails at once, the others never end.
SERVER = """\
#!/bin/sh
echo '{"event": "ready", "environment": {"kernel": "forked"}}'
while read -r line; do
  run=${line#*'"run": "'} run=${run%%'"'*}
  echo '{"event": "executing", "pid": 1, "run": "'$run'"}'
  case $run in *01_ends*)
    echo '{"event": "ended", "end": "failed", "reason": "early", "cell": "", "saved": false,' \\
      '"seconds": 1, "stuck": [], "machine_fault": true, "run": "'$run'"}' ;;
  esac
done
"""


@pytest.fixture
def engine(docker_engine: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an engine of its own, in which an image has a shell in place of Python."""
    if os.getuid() != 0 or not shutil.which("dockerd"):
        missing("root and dockerd")
    with tempfile.TemporaryDirectory() as name:  # pytest's path is too long for sockets
        folder = Path(name)
        options = ["--no-hook", "--iptables=false", "--bridge=none"]
        subprocess.run([ROOT / "tests/engine/start", folder, *options], check=True)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        try:
            make_image(folder / "root")
            yield folder
        finally:
            stop(name)


def stop(folder: str) -> None:
    """Kill what an engine has left: its containers, which outlive it, and its mounts."""
    found = [each for each in psutil.process_iter(["cmdline"]) if folder in str(each.info)]
    for process in [child for each in found for child in each.children(recursive=True)] + found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=10)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(folder)]):
        subprocess.run(["umount", "-l", mount], check=True)


def make_image(root: Path) -> None:
    """Make an image that has nothing but a shell, by the name of the lab's."""
    (root / "bin").mkdir(parents=True)
    for path in shutil.which("dash"), *libraries("/bin/dash"):
        assert path
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    if not (root / "bin/dash").exists():
        (root / "bin/dash").symlink_to("/usr/bin/dash")
    (root / "bin/sh").symlink_to("dash")
    (root / "bin/python").write_text(SERVER)
    (root / "bin/python").chmod(0o755)
    script = f"tar -C {root} -c . | docker import - {image.tag('cpu', DOCKER)}"
    subprocess.run(script, shell=True, check=True, stdout=subprocess.DEVNULL)


def libraries(program: str) -> list[str]:
    """What a program loads."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for word in listed.split() if word.startswith("/")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_reports_are_written_if_the_engine_dies(
    engine: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Status 3; the reports have the run that had ended, and blame the machine for the other."""
    for name in ("01_ends", "02_hangs"):
        write_lesson(tmp_path, expected=ORACLE, name=name)
    (tmp_path / "docker").symlink_to(DOCKER)
    shutil.copy(ROOT / "tasks.py", tmp_path)
    words = ["run", "--on", "lab", "--gpus", "none", "--jobs", "2", "--handouts", "none"]
    run = subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.stdout
    before = ""
    while "early" not in before and (line := run.stdout.readline()):
        before += line
    os.kill(int((engine / "pid").read_text()), number)
    output, _ = run.communicate(timeout=120)
    assert "Traceback" not in output
    assert run.returncode == 3, before + output
    report = json.loads((tmp_path / "build/report.json").read_text())
    found = {each["lesson"]: each["reason"] for each in report["runs"]}
    assert found.keys() == {"01_ends", "02_hangs"}
    assert found["02_hangs"].startswith("the container ")
    suites = ET.parse(tmp_path / "build/junit.xml").getroot().findall("testsuite")
    assert len(suites) == 2
    assert not list((tmp_path / "build").rglob("*.partial"))
