"""`invoke doctor` with the real engine and image, and with replacements of the driver's tools."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ci.doctor import diagnosis, examine
from ci.doctor.diagnosis import HERE, LAB, MACHINE, Finding
from ci.lab import containers
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.plan import gpus
from tests.conftest import DOCKER, ROOT

NOWHERE = "unix:///nowhere/docker.sock"


def examine_place(on: str, request: str = "none", *, docker: Path = DOCKER) -> list[Finding]:
    """The findings of `invoke doctor --on … --gpus …`."""
    return list(examine.examine(on, gpus.parse(request), docker, ROOT / "build"))


def find(findings: list[Finding], subject: str, place: str | None = None) -> Finding:
    """The one finding of a subject, at a place if one is named."""
    (finding,) = [
        finding
        for finding in findings
        if finding.subject == subject and place in (None, finding.place)
    ]
    return finding


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


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of replacements for NVIDIA's tools: two H100, everything up to date."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi(tmp_path, driver="580.95.05", capability="9.0")
    tool(tmp_path, "nvidia-ctk", "echo 'NVIDIA Container Toolkit CLI version 1.17.8'")
    return tmp_path


def tool(folder: Path, name: str, script: str) -> None:
    """Write an executable script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def smi(folder: Path, *, driver: str, capability: str) -> None:
    """Write an nvidia-smi that answers the doctor's queries for two GPUs."""
    answers = {
        "uuid,driver_version": f"GPU-{{0}}, {driver}",
        "uuid,memory.total,compute_cap": f"GPU-{{0}}, 81559 MiB, {capability}",
    }
    cases = [
        f"--query-gpu={query}) echo '{line.format(0)}'; echo '{line.format(1)}' ;;"
        for query, line in answers.items()
    ]
    gpus = "echo 'GPU {0}: NVIDIA H100 (UUID: GPU-{0})'"
    cases.append(f"-L) {gpus.format(0)}; {gpus.format(1)} ;;")
    tool(folder, "nvidia-smi", "\n".join(['case "$1" in', *cases, "*) exit 2 ;;", "esac"]))


@pytest.fixture(scope="module")
def in_lab(lab_image: Image) -> list[Finding]:
    """The findings in the lab without GPUs."""
    return examine_place("lab")


def test_the_lab_is_examined_from_inside(in_lab: list[Finding]) -> None:
    """Engine, builder and image; and in a container isolation, shared memory and an all-reduce."""
    assert diagnosis.usable_place(in_lab) == LAB
    assert find(in_lab, "cpu image").text.startswith("up to date, 1.")
    assert find(in_lab, "isolation").text.endswith(", no network, read-only root")
    assert find(in_lab, "shared memory").text == "1.0 GiB in /dev/shm"
    assert find(in_lab, "torch").text == "2.13.0+cpu, built for the CPU"
    assert find(in_lab, "kernels").text.startswith("forked: ")
    assert find(in_lab, "all-reduce").text.startswith("2 ranks, gloo: ")
    assert not [finding for finding in in_lab if finding.place == HERE]


def test_no_container_is_left(in_lab: list[Finding]) -> None:
    """The doctor removes its own."""
    with connect() as client:
        ours = client.containers.list(all=True, filters={"name": "doctor"}, ignore_removed=True)
    owners = [container.labels[containers.OWNER].split()[3] for container in ours]
    assert str(os.getpid()) not in owners


def test_a_stale_image_fails_with_its_remedy(lab_image: Image, tmp_path: Path) -> None:
    """The image was built from another Dockerfile; nothing runs in it."""
    docker = tmp_path / "docker"
    shutil.copytree(DOCKER, docker, ignore=shutil.ignore_patterns("wheels"))
    with (docker / "Dockerfile").open("a") as file:
        file.write("RUN true\n")
    findings = examine_place("lab", docker=docker)
    finding = find(findings, "cpu image")
    assert finding.verdict == "fail"
    assert finding.remedy.startswith("invoke build-lab --variant cpu --base-image ")
    assert finding.text.startswith("none of docker/ as it is now; the newest: 1.")
    assert not [finding for finding in findings if finding.subject == "torch"]
    assert diagnosis.usable_place(findings) == ""


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


def test_healthy_tools_are_ok(docker_engine: None, tools: Path) -> None:
    """The driver, the toolkit and both GPUs."""
    findings = examine_place("lab", "auto")
    for what in ("NVIDIA driver", "NVIDIA toolkit", "GPU 0", "GPU 1"):
        assert find(findings, what, LAB).verdict == "ok"
    assert find(findings, "GPU 1").text == "NVIDIA H100, 81559 MiB, capability 9.0"


def test_an_old_driver_fails(docker_engine: None, tools: Path) -> None:
    """torch's wheels need a newer one; the remedy names it."""
    smi(tools, driver="570.86.15", capability="9.0")
    finding = find(examine_place("lab", "auto"), "NVIDIA driver")
    assert (finding.verdict, finding.remedy) == ("fail", "install 580 or newer")


def test_a_driver_too_old_for_a_query_is_still_reported(docker_engine: None, tools: Path) -> None:
    """An nvidia-smi without compute_cap fails that query, and no other."""
    smi(tools, driver="460.1", capability="9.0")
    script = (tools / "nvidia-smi").read_text()
    (tools / "nvidia-smi").write_text(script.replace(",compute_cap)", ",unknown)"))
    findings = examine_place("lab", "auto")
    assert find(findings, "NVIDIA driver").verdict == "fail"
    assert "capability unknown" in find(findings, "GPU 0").text


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.7"),
        ("nvidia-container-cli", "cli-version: 1.17.7"),
    ],
)
def test_an_old_toolkit_fails_and_names_its_vulnerability(
    docker_engine: None, tools: Path, name: str, answer: str
) -> None:
    """Either of its tools tells the version."""
    (tools / "nvidia-ctk").unlink()
    tool(tools, name, f"echo '{answer}'")
    finding = find(examine_place("lab", "auto"), "NVIDIA toolkit")
    assert (finding.verdict, finding.text) == ("fail", "1.17.7; 1.17.8 fixes CVE-2025-23266")


def test_a_missing_toolkit_fails(docker_engine: None, tools: Path) -> None:
    """Neither of its tools is installed."""
    (tools / "nvidia-ctk").unlink()
    finding = find(examine_place("lab", "auto"), "NVIDIA toolkit")
    assert finding.verdict == "fail"
    assert finding.remedy.startswith("install the NVIDIA Container Toolkit")


def test_with_gpus_the_cuda_image_is_the_one_to_build(
    tools: Path, lab_image: Image, tmp_path: Path
) -> None:
    """The image with the CPU build cannot replace it."""
    docker = tmp_path / "docker"  # no CUDA image was built from this folder
    shutil.copytree(DOCKER, docker, ignore=shutil.ignore_patterns("wheels"))
    with (docker / "cuda.txt").open("a") as file:
        file.write("# changed\n")
    findings = examine_place("lab", "auto", docker=docker)
    finding = find(findings, "cuda image")
    assert (finding.verdict, finding.remedy) == ("fail", "invoke build-lab --variant cuda")
    assert find(findings, "cpu image").verdict == "ok"


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
