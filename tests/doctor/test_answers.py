"""`invoke doctor` with unusual answers of engines and probes, which were recorded."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.doctor import examine
from ci.doctor.diagnosis import Finding, Verdict
from tests.doctor.conftest import Engine, examine_place

Examined = Callable[..., dict[str, Finding]]


@pytest.fixture
def examined(engine: Engine) -> Examined:
    """The lab's findings by subject, if the engine has these answers."""

    def examined(version: dict[str, Any], info: dict[str, Any], *images: Any) -> Any:
        engine(version, info, *images)
        return {finding.subject: finding for finding in examine_place("lab")}

    return examined


def test_a_rootless_engine_is_named(examined: Examined) -> None:
    """Its users do not have root on this machine."""
    info = {"DockerRootDir": "/nowhere", "SecurityOptions": ["name=rootless"]}
    findings = examined({"Version": "20.10.24", "ApiVersion": "1.41"}, info)
    assert findings["Docker engine"].text == "20.10.24, API 1.41, rootless"
    assert "limits" not in findings


# Of `docker version` and `docker info`, shortened: Podman 4.3.1, and Docker 29 with its default
# image store and two GPUs described by CDI.
PODMAN = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}
DOCKER_29 = {"Version": "29.0.1", "Components": [{"Name": "Engine", "Version": "29.0.1"}]}
CONTAINERD = {
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "DiscoveredDevices": [{"Source": "cdi", "ID": f"nvidia.com/gpu={n}"} for n in range(2)],
}


@pytest.mark.parametrize(
    ("version", "info", "kind"),
    [
        (PODMAN, {}, "Podman"),
        (DOCKER_29, {"SecurityOptions": ["name=rootless"]}, "rootless"),
    ],
)
def test_an_untested_engine_is_named(
    examined: Examined, version: dict[str, Any], info: dict[str, Any], kind: str
) -> None:
    """A warning says that no test runs on it."""
    finding = examined(version, info)["Docker engine"]
    assert finding.verdict == Verdict.WARN
    assert kind in finding.text
    assert finding.remedy.startswith(f"{kind}: tried by hand, no test runs on it")


def test_the_image_store_is_named(examined: Examined) -> None:
    """CI tests the lab in both."""
    finding = examined(DOCKER_29, CONTAINERD)["Docker engine"]
    assert finding.verdict == Verdict.OK
    assert "containerd image store" in finding.text


def test_gpus_described_by_cdi_are_counted(examined: Examined) -> None:
    """An engine with CDI needs no hook."""
    assert examined(DOCKER_29, CONTAINERD)["Docker engine"].text.endswith("; CDI: 2 devices")


def test_a_plain_engine_is_ok(examined: Examined) -> None:
    """Such as the tests' own."""
    info = {"DriverStatus": [["Backing", "ext4"]]}
    assert examined(DOCKER_29, info)["Docker engine"].verdict == Verdict.OK


def test_an_engine_that_limits_nothing_is_reported(examined: Examined) -> None:
    """With cgroup v1, a rootless engine accepts limits and ignores them."""
    info = {"DockerRootDir": "/nowhere", "MemoryLimit": False, "PidsLimit": False}
    assert examined({}, info)["limits"].verdict == Verdict.WARN


def test_missing_parts_of_an_answer_are_findings(examined: Examined) -> None:
    """A missing part is unknown, or named in a finding; there is no traceback."""
    findings = examined({}, {})
    assert findings["Docker engine"].text.startswith("version unknown, API unknown")
    assert findings["cpu image"].verdict == Verdict.FAIL
    findings = examined({}, {}, SimpleNamespace(labels={}, attrs={}, tags=["pytorch-course:cpu-1"]))
    assert findings["Docker"].verdict == Verdict.FAIL
    assert "the Docker engine's answer has no Size" in findings["Docker"].text


def test_other_lines_of_a_probe_are_no_facts() -> None:
    """A library may print other lines, JSON or not: they are skipped."""
    lines = ['{"no json\n', "[1]\n", "{}\n", '{"test": "torch", "fault": "no"}\n']
    channel: Any = SimpleNamespace(lines=lambda: iter(lines))
    assert examine.read_facts(channel) == [{"test": "torch", "fault": "no"}]


def test_a_probe_that_never_ends_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stuck in a driver ignores its alarm."""
    monkeypatch.setattr(examine, "DEADLINE_S", 0)
    monkeypatch.setattr(examine, "GRACE_S", 0.5)
    end = threading.Event()

    def lines() -> Iterator[str]:
        yield '{"test": "torch"}\n'
        end.wait()

    channel: Any = SimpleNamespace(lines=lines, ending=lambda: "hangs")
    assert examine.read_facts(channel)[1]["fault"].startswith("after torch it hangs")
    end.set()


@pytest.mark.parametrize(
    ("options", "is_filtered"),
    [(["name=seccomp,profile=default"], True), (["name=apparmor"], False), (None, False)],
)
def test_an_engine_that_filters_no_system_calls_is_reported(
    examined: Examined, options: Any, is_filtered: bool
) -> None:
    """The lab's own filter is shorter than that of an engine."""
    findings = examined({}, {"SecurityOptions": options})
    assert ("system calls" in findings) != is_filtered


def test_a_folder_for_results_that_cannot_be_made_is_reported(
    engine: Engine, tmp_path: Path
) -> None:
    """A run could keep nothing, for example in a checkout that is mounted read-only."""
    engine()
    (tmp_path / "file").touch()
    found = examine_place("lab", build=tmp_path / "file" / "build")
    (finding,) = [each for each in found if each.subject == "results"]
    assert finding.verdict == Verdict.FAIL
    assert finding.text.endswith("file/build: Not a directory")


def test_the_context_of_the_engine_is_named(
    examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker build` and the lab follow it."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "remote")
    finding = examined(DOCKER_29, {"DriverStatus": []})["Docker engine"]
    assert finding.text.startswith("29.0.1, API unknown, context 'remote'; ")
