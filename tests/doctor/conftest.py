"""Examining: machines that are replaced by their tools, and engines by what they answer."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.doctor import examine
from ci.doctor.diagnosis import Finding
from ci.lab import docker_engine
from ci.plan import gpus
from tests.conftest import DOCKER, ROOT

Engine = Callable[..., None]
# Of `docker version` and `docker info`, shortened: the tests' own engine
VERSION = {"Version": "20.10.24", "ApiVersion": "1.41"}
INFO = {"DockerRootDir": "/nowhere", "SecurityOptions": ["name=seccomp,profile=default"]}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Replace the engine by one with this `docker version`, `docker info` and images."""

    def engine(
        version: dict[str, Any] = VERSION, info: dict[str, Any] = INFO, *images: Any
    ) -> None:
        client = SimpleNamespace(
            version=lambda: version,
            info=lambda: info,
            images=SimpleNamespace(list=lambda **_: images),
            api=SimpleNamespace(base_url="http+docker://localhost"),
        )
        monkeypatch.setattr(docker_engine, "connect", lambda: nullcontext(client))

    return engine


def examine_place(
    on: str, request: str = "none", *, docker: Path = DOCKER, build: Path = ROOT / "build"
) -> list[Finding]:
    """The findings of `invoke doctor --on … --gpus …`."""
    return list(examine.examine(on, gpus.parse(request), docker, build))


def find(findings: list[Finding], subject: str, place: str | None = None) -> Finding:
    """The one finding of a subject, at a place if one is named."""
    (finding,) = [
        finding
        for finding in findings
        if finding.subject == subject and place in (None, finding.place)
    ]
    return finding


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


def smi(folder: Path, *, driver: str, capability: str, uuid: str = "GPU") -> None:
    """Write an nvidia-smi that answers the doctor's queries for two GPUs."""
    answers = {
        "uuid,driver_version": f"{uuid}-{{0}}, {driver}",
        "uuid,memory.total,compute_cap": f"{uuid}-{{0}}, 81559 MiB, {capability}",
    }
    cases = [
        f"--query-gpu={query}) echo '{line.format(0)}'; echo '{line.format(1)}' ;;"
        for query, line in answers.items()
    ]
    gpus = f"echo 'GPU {{0}}: NVIDIA H100 (UUID: {uuid}-{{0}})'"
    cases.append(f"-L) {gpus.format(0)}; {gpus.format(1)} ;;")
    tool(folder, "nvidia-smi", "\n".join(['case "$1" in', *cases, "*) exit 2 ;;", "esac"]))
