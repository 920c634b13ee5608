"""`invoke doctor` with engines and probes whose answers are unusual; these are recorded."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from ci.doctor import examine
from ci.doctor.diagnosis import LAB, Finding, Verdict
from ci.lab import docker_engine
from ci.plan import gpus
from tests.conftest import DOCKER, ROOT

Examined = Callable[..., dict[str, Finding]]


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    """The lab's findings, by subject, with an engine of this `docker version` and `docker info`."""

    def examined(version: dict[str, Any], info: dict[str, Any], *images: Any) -> Any:
        client = SimpleNamespace(
            version=lambda: version,
            info=lambda: info,
            images=SimpleNamespace(list=lambda **_: images),
            api=SimpleNamespace(base_url="http+docker://localhost"),
        )
        monkeypatch.setattr(docker_engine, "connect", lambda: nullcontext(client))
        found = examine.examine("lab", gpus.parse("none"), DOCKER, ROOT / "build")
        return {finding.subject: finding for finding in found if finding.place == LAB}

    return examined


def test_a_rootless_engine_is_named(examined: Examined) -> None:
    """In place of the warning that its users have root on this machine."""
    info = {"DockerRootDir": "/nowhere", "SecurityOptions": ["name=rootless"]}
    findings = examined({"Version": "20.10.24", "ApiVersion": "1.41"}, info)
    assert findings["Docker engine"].text == "20.10.24, API 1.41; rootless"
    assert "limits" not in findings


def test_an_engine_that_limits_nothing_is_warned_of(examined: Examined) -> None:
    """A rootless one with cgroup v1 accepts limits and ignores them."""
    info = {"DockerRootDir": "/nowhere", "MemoryLimit": False, "PidsLimit": False}
    assert examined({}, info)["limits"].verdict == Verdict.WARN


def test_an_engine_that_says_little_is_a_finding(examined: Examined) -> None:
    """What its answers leave out is unknown, or named: there is no traceback."""
    findings = examined({}, {})
    assert findings["Docker engine"].text.startswith("version unknown, API unknown")
    assert findings["cpu image"].verdict == Verdict.FAIL
    findings = examined({}, {}, SimpleNamespace(labels={}, attrs={}))
    assert findings["Docker"].verdict == Verdict.FAIL
    assert "the Docker engine's answer has no Size" in findings["Docker"].text


def test_other_lines_of_a_probe_are_no_facts() -> None:
    """What a library prints in between is skipped, JSON or not."""
    lines = ['{"no json\n', "[1]\n", "{}\n", '{"test": "torch", "fault": "no"}\n']
    channel: Any = SimpleNamespace(lines=lambda: iter(lines))
    assert examine.read_facts(channel) == [{"test": "torch", "fault": "no"}]
