"""`invoke doctor` with the real engine and image."""

import os
import shutil
from pathlib import Path

import pytest

from ci.doctor import diagnosis
from ci.doctor.diagnosis import HERE, LAB, Finding
from ci.lab import containers
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from tests.conftest import DOCKER
from tests.doctor.conftest import examine_place, find


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
