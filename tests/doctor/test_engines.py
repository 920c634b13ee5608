"""What the doctor says of engines that the tests cannot start, by their recorded answers."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.doctor import examine
from ci.doctor.diagnosis import Finding
from ci.lab import docker_engine
from ci.plan import gpus
from tests.conftest import DOCKER

# Of `docker version` and `docker info`, shortened: Podman 4.3.1, and Docker 29 with its default
# image store and two GPUs described by CDI.
PODMAN = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}
DOCKER_29 = {"Version": "29.0.1", "Components": [{"Name": "Engine", "Version": "29.0.1"}]}
CONTAINERD = {
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "DiscoveredDevices": [{"Source": "cdi", "ID": f"nvidia.com/gpu={n}"} for n in range(2)],
}


def describe(
    monkeypatch: pytest.MonkeyPatch, version: dict[str, Any], info: dict[str, Any]
) -> Finding:
    """The doctor's finding on an engine with these answers, which has no image."""
    client = SimpleNamespace(
        version=lambda: version,
        info=lambda: info,
        api=SimpleNamespace(base_url="http://elsewhere"),
        images=SimpleNamespace(list=lambda **_: []),
    )
    monkeypatch.setattr(docker_engine, "connect", lambda: contextlib.nullcontext(client))
    findings = examine.examine("lab", gpus.parse("none"), DOCKER, Path("build"))
    return next(finding for finding in findings if finding.subject == "Docker engine")


@pytest.mark.parametrize(
    ("version", "info", "kind"),
    [
        (PODMAN, {}, "Podman"),
        (DOCKER_29, {"SecurityOptions": ["name=rootless"]}, "rootless"),
        (DOCKER_29, CONTAINERD, "containerd image store"),
    ],
)
def test_an_untested_engine_is_named(
    monkeypatch: pytest.MonkeyPatch, version: dict[str, Any], info: dict[str, Any], kind: str
) -> None:
    """A warning says that no test runs on it."""
    finding = describe(monkeypatch, version, info)
    assert finding.verdict == "warn"
    assert kind in finding.text
    assert finding.remedy.startswith(f"{kind}: tried by hand, no test runs on it")


def test_gpus_described_by_cdi_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with CDI needs no hook."""
    assert describe(monkeypatch, DOCKER_29, CONTAINERD).text.endswith("; CDI: 2 devices")


def test_a_plain_engine_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the tests' own."""
    assert describe(monkeypatch, DOCKER_29, {"DriverStatus": [["Backing", "ext4"]]}).verdict == "ok"
