"""`invoke build-lab`: an image that is up to date, and faults."""

import subprocess
import sys

import pytest

from ci.lab.image import Image
from tests.conftest import ROOT


def invoke(*words: str) -> tuple[int, list[str]]:
    """The exit status and the lines of `invoke build-lab`."""
    command = [sys.executable, "-m", "invoke", "build-lab", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_an_image_that_is_up_to_date_is_left_alone(lab_image: Image, base_image: str) -> None:
    """No step runs, and the image is the same."""
    assert invoke("--variant", "cpu", "--base-image", base_image) == (0, [str(lab_image)])


def test_a_base_that_does_not_exist_is_the_machines_fault(docker_engine: None) -> None:
    """After the registry was asked, one line says how to make a base."""
    status, lines = invoke("--variant", "cpu", "--base-image", "localhost:1/no/such:image")
    assert (status, len(lines)) == (3, 2)
    assert lines[0] == "pulling localhost:1/no/such:image"
    assert "no base image localhost:1/no/such:image here or in a registry" in lines[1]
    assert "docker/make_base" in lines[1]


def test_an_engine_that_is_down_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with its address."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    status, lines = invoke("--variant", "cpu")
    assert (status, len(lines)) == (3, 1)
    assert "no Docker engine answers at unix:///nowhere.sock" in lines[0]


def test_a_bad_variant_is_the_command_lines_fault() -> None:
    """Status 2, before any engine is contacted."""
    assert invoke("--variant", "gpu") == (2, ["--variant gpu: expected cuda or cpu"])
