"""`invoke doctor` without an engine: its command line, and this machine outside the lab."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ci.doctor import diagnosis, examine
from ci.doctor.diagnosis import HERE, MACHINE
from tests.conftest import ROOT
from tests.doctor.conftest import examine_place, find

NOWHERE = "unix:///nowhere/docker.sock"


def command(*words: str) -> tuple[int, str]:
    """The exit status and output of `invoke doctor`, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "doctor", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    return done.returncode, output


@pytest.mark.kernel
def test_without_an_engine_auto_examines_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab fails with its remedy; the course can run outside of it: status 0."""
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    status, output = command("--gpus", "none")
    assert status == 0
    text = " ".join(output.split())
    assert f"fail no Docker engine answers at {NOWHERE}: start it" in text
    assert output.endswith("the course can run outside the lab\n")


def test_without_an_engine_the_lab_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 3; this machine is not examined outside the lab."""
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    status, output = command("--on", "lab")
    assert status == 3
    assert "outside the lab" not in output
    assert output.endswith("the course can run at none of these places\n")


@pytest.mark.kernel
def test_outside_the_lab_docker_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """No finding mentions it; without a terminal, the output is plain text."""
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    status, output = command("--on", "here", "--gpus", "none")
    assert (status, "Docker" in output, "\x1b" in output) == (0, False, False)
    assert re.search(r"torch +ok +2\.", output)
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.kernel
def test_requested_gpus_that_are_missing_fail() -> None:
    """This is one finding among the others; status 3."""
    status, output = command("--on", "here", "--gpus", "64")
    assert status == 3
    assert re.search(r"GPUs +fail +--gpus 64: this machine has", output)
    assert re.search(r"all-reduce +ok", output)


@pytest.mark.parametrize("words", [("--on", "moon"), ("--gpus", "some")])
def test_a_bad_command_line_gets_one_line_and_status_2(words: tuple[str, str]) -> None:
    """Nothing is examined."""
    status, output = command(*words)
    assert (status, len(output.splitlines())) == (2, 1)
    assert " ".join(words) in output


def test_a_torch_that_does_not_load_fails_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding has its error."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = examine_place("here")
    finding = find(findings, "torch")
    assert (finding.verdict, finding.text) == ("fail", "libcudart.so.13: cannot open")
    assert diagnosis.usable_place(findings) == ""


def test_a_probe_that_dies_fails_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding says how the probe ended, and after which test."""
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = find(examine_place("here"), "probe")
    assert finding.verdict == "fail"
    assert finding.text.startswith("after surroundings it was killed by SIGABRT")


@pytest.mark.kernel
def test_little_disk_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy frees some."""
    monkeypatch.setattr(examine, "RESULTS", 2**60)
    findings = examine_place("here")
    finding = find(findings, "disk for results", MACHINE)
    assert (finding.verdict, finding.remedy) == ("warn", "invoke clean")
    assert diagnosis.usable_place(findings) == HERE
