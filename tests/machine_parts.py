"""The parts of a system that tests need: poppler, Docker engines, images, a Slurm cluster."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import pytest

from ci.errors import MachineError
from ci.lab import image
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.machine import atomic
from tests.conftest import DOCKER, ROOT
from tests.slurm.cluster import PROGRAMS, Cluster, cluster


def missing(part: str) -> NoReturn:
    """A system part is not there: the test is skipped, and in CI it fails."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs {part}")
    raise AssertionError


def containers_named(word: str) -> list[str]:
    """Containers of ours whose name has `word` in it."""
    with connect() as client:
        found = client.containers.list(all=True, filters={"name": word}, ignore_removed=True)
        return [container.name for container in found]


@pytest.fixture
def poppler() -> None:
    """pdftotext."""
    if not shutil.which("pdftotext"):
        missing("poppler-utils")


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine that answers; CONTRIBUTING says how to start one for the tests."""
    try:
        with connect():
            return
    except MachineError as error:
        missing(f"a Docker engine: {error}")


def once() -> AbstractContextManager[None]:
    """What the block makes is made by one process, and found by the others."""
    return atomic.exclusive(ROOT / "build/tests", on_wait=lambda: None)


@pytest.fixture(scope="session")
def base_image(docker_engine: None) -> str:
    """The name of a base image, made by docker/make_base where it is not there."""
    name = "pytorch-course-base:bookworm"
    with once(), connect() as client:
        if not client.images.list(name=name):
            if os.getuid() != 0 or not shutil.which("mmdebstrap"):
                missing("root and mmdebstrap")
            subprocess.run([DOCKER / "make_base", name], check=True)
    return name


@pytest.fixture(scope="session")
def cpu_wheel() -> Path:
    """The folder of wheels, with torch's CPU build in it, which PyPI does not have."""
    wheels = DOCKER / "wheels"
    with once():
        if not list(wheels.glob("torch-*+cpu-*.whl")):
            wheel = ["torch==2.13.0+cpu", "--no-deps", "--dest", str(wheels)]
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", *wheel], check=True)
    return wheels


@pytest.fixture(scope="session")
def lab_image(base_image: str, cpu_wheel: Path) -> Image:
    """The lab's image of today's docker/, with the CPU build of torch."""
    build = ["build-lab", "--variant", "cpu", "--base-image", base_image]
    with once(), connect() as client:
        subprocess.run([sys.executable, "-m", "invoke", *build], cwd=ROOT, check=True)
        return image.find(client, ["cpu"], DOCKER)


@pytest.fixture
def hook_log(docker_engine: None) -> Iterator[Path]:
    """What containers that asked for GPUs were given, by the hook of tests/engine: emptied."""
    log = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://")).with_name("hook.log")
    if not log.exists():
        missing("the engine that tests/engine/start starts")
    log.write_text("")
    yield log


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A Slurm cluster of three nodes with two GPUs each, on this machine."""
    if os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        missing(f"root and {', '.join(PROGRAMS)}")
    with cluster() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", found.environment["SLURM_CONF"])
        yield found


@pytest.fixture
def slurm(slurm_cluster: Cluster) -> Cluster:
    """The cluster, once all of its nodes are up."""
    slurm_cluster.wait_until_up()
    return slurm_cluster
