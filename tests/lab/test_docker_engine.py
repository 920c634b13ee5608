"""What engines answer and refuse, recorded."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.context import ContextAPI
from docker.errors import APIError
from requests.exceptions import ReadTimeout

from ci.errors import MachineError
from ci.lab import containers, docker_engine
from ci.plan.gpus import Gpu

# `docker info` of Debian's docker.io 20.10.24, started by its dockerd-rootless.sh, shortened
ROOTLESS: dict[str, Any] = {
    "ServerVersion": "20.10.24+dfsg1",
    "CgroupDriver": "none",
    "CgroupVersion": "1",
    "MemoryLimit": False,
    "PidsLimit": False,
    "MemTotal": 25273397248,
    "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
}
ROOTFUL = ROOTLESS | {"SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"]}


def client(info: dict[str, Any]) -> Any:
    """A client of an engine with this `docker info`."""
    return SimpleNamespace(info=lambda: info)


@pytest.mark.parametrize(
    ("info", "rootless"), [(ROOTLESS, True), (ROOTFUL, False), ({"SecurityOptions": None}, False)]
)
def test_a_rootless_engine_is_recognised(info: dict[str, Any], rootless: bool) -> None:
    """Its security options tell; some engines have none."""
    assert docker_engine.is_rootless(client(info)) == rootless


def test_a_rootless_engine_needs_root_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root inside is the caller; any other user inside cannot write the caller's files."""
    monkeypatch.setattr(os, "getuid", lambda: 4000)
    assert containers.needs_root(client(ROOTLESS))
    assert not containers.needs_root(client(ROOTFUL))


def test_root_cannot_use_another_users_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside, even root is that user, who cannot write root's files."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(MachineError, match="rootless and belongs to another user"):
        containers.needs_root(client(ROOTLESS))
    assert not containers.needs_root(client(ROOTFUL))


PODMAN = {"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}  # of `version`
DOCKER = {"Components": [{"Name": "Engine", "Version": "20.10.24"}]}


def test_podman_gives_no_gpus() -> None:
    """It would ignore the request, and the lessons would run on the CPU."""
    podman, gpu = SimpleNamespace(version=lambda: PODMAN), Gpu("0", "GPU-0", "NVIDIA H100")
    with pytest.raises(MachineError, match="Podman's API gives no GPUs"):
        docker_engine.require_gpus(podman, [gpu])
    docker_engine.require_gpus(podman, [])


@pytest.mark.parametrize("version", [DOCKER, {}])
def test_other_engines_give_gpus(version: dict[str, Any]) -> None:
    """Or say that they cannot."""
    gpu = Gpu("0", "GPU-0", "NVIDIA H100")
    docker_engine.require_gpus(SimpleNamespace(version=lambda: version), [gpu])


def test_a_rootless_engine_that_nobody_named_is_named(
    tmp_path: Path, docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `docker` command would not find it either."""
    (tmp_path / "docker.sock").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(docker_engine, "SOCKET", "unix:///nowhere.sock")
    with (
        pytest.raises(MachineError, match=f"export DOCKER_HOST=unix://{tmp_path}/docker.sock"),
        docker_engine.connect(),
    ):
        pass


def test_users_inside_are_not_remapped() -> None:
    """With userns-remap, the user inside would be another user of the machine."""
    assert containers.hardened_options(2**30, user="1000:1000")["userns_mode"] == "host"


@pytest.mark.parametrize("info", [{}, {"MemTotal": None}])
def test_an_answer_without_a_key_is_the_machines_fault(info: dict[str, Any]) -> None:
    """One line names it: other engines that speak Docker's API may omit it."""
    with pytest.raises(MachineError, match="the Docker engine's answer has no MemTotal"):
        docker_engine.usable_memory(client(info))


def test_containers_use_four_fifths_of_the_memory() -> None:
    """All of them together."""
    assert docker_engine.usable_memory(client({"MemTotal": 1000})) == 800


@pytest.mark.parametrize(
    ("info", "cores"),
    [({"NCPU": 8, "CpuCfsQuota": True}, 8), ({"NCPU": 8, "CpuCfsQuota": False}, 0), ({}, 0)],
)
def test_an_engine_that_limits_no_cores_is_not_asked_to(info: dict[str, Any], cores: int) -> None:
    """A rootless engine on cgroup v1 would refuse to create the container."""
    assert docker_engine.limited_cores(client(info)) == cores


def test_silence_is_the_machines_fault() -> None:
    """Instead of an error of the library that speaks HTTP."""
    line = "does not answer.*restart Docker"
    with pytest.raises(MachineError, match=line), docker_engine.explained():
        raise ReadTimeout("UnixHTTPConnectionPool: Read timed out.")


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            "the Docker engine cannot give GPUs to containers: install the NVIDIA Container "
            "Toolkit and restart Docker, or use --gpus none",
        ),
        (
            "nvidia-container-cli: device error: GPU-9: unknown device\nmore: unknown",
            "NVIDIA's hook: device error: GPU-9: unknown device",
        ),
        (
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-9",
            "the Docker engine finds no CDI description of this GPU: sudo nvidia-ctk cdi generate "
            "--output=/etc/cdi/nvidia.yaml, and again after each change of the driver",
        ),
        ("no\n space", "the Docker engine: no space"),
    ],
)
def test_a_refusal_is_one_line(refusal: str, line: str) -> None:
    """It ends with the remedy, if one is known."""
    with pytest.raises(MachineError) as raised, docker_engine.explained():
        raise APIError("500 Server Error", explanation=refusal)
    assert str(raised.value) == line


@pytest.fixture
def docker_host() -> str:
    """The address of the tests' engine."""
    return os.environ.get("DOCKER_HOST", docker_engine.SOCKET)


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the configuration of the `docker` command; DOCKER_HOST is not set."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_an_unknown_context_is_named(docker_config: Path) -> None:
    """The SDK would use the default engine without a word."""
    (docker_config / "config.json").write_text('{"currentContext": "remote"}')
    with (
        pytest.raises(MachineError, match="no Docker context 'remote': `docker context ls`"),
        docker_engine.connect(),
    ):
        pass


def test_the_context_of_a_dead_engine_is_named(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_CONTEXT counts before the configuration, as for the `docker` command."""
    ContextAPI.create_context("dead", host="unix:///nowhere.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "dead")
    with (
        pytest.raises(MachineError, match="no Docker engine answers at context 'dead'"),
        docker_engine.connect(),
    ):
        pass


# https://github.com/docker/docker-py/issues/3146
@pytest.mark.usefixtures("docker_engine")
def test_the_engine_of_the_current_context_is_used(docker_host: str, docker_config: Path) -> None:
    """Rootless engines and Docker Desktop are found by their context alone."""
    ContextAPI.create_context("course", host=docker_host)
    ContextAPI.set_current_context("course")
    with docker_engine.connect() as client:
        assert client.ping()


@pytest.mark.parametrize(
    ("name", "is_passed_on"),
    [
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", True),
        ("NCCL_P2P_DISABLE", True),
        ("GLOO_SOCKET_IFNAME", True),
        ("XNCCL_DEBUG", False),
        ("AWS_SECRET_ACCESS_KEY", False),
    ],
)
def test_variables_that_tune_communication_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, name: str, is_passed_on: bool
) -> None:
    """And no others."""
    monkeypatch.setenv(name, "1")
    assert (name in containers.passed_on()) == is_passed_on


def test_nccl_does_not_ask_for_numa_nodes_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would refuse; the caller's own setting counts."""

    def setting(*gpus: Gpu) -> str | None:
        options = containers.hardened_options(2**30, user="1000:1000", gpus=gpus)
        found: str | None = options["environment"].get("NCCL_CUMEM_HOST_ENABLE")
        return found

    gpu = Gpu("0", "GPU-0", "NVIDIA H100")
    assert (setting(), setting(gpu)) == (None, "0")
    monkeypatch.setenv("NCCL_CUMEM_HOST_ENABLE", "1")
    assert setting(gpu) == "1"
