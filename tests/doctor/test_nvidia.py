"""`invoke doctor` with replacements of NVIDIA's tools, and an engine that is replaced, too."""

from pathlib import Path

import pytest

from ci.doctor.diagnosis import LAB
from ci.machine import program
from tests.doctor.conftest import Engine, examine_place, find, smi, tool

pytestmark = pytest.mark.usefixtures("plain_engine")


@pytest.fixture
def plain_engine(engine: Engine) -> None:
    """An engine like the tests' own, without an image."""
    engine()


def test_healthy_tools_are_ok(tools: Path) -> None:
    """The driver, the toolkit and both GPUs."""
    findings = examine_place("lab", "auto")
    for what in ("NVIDIA driver", "NVIDIA toolkit", "GPU 0", "GPU 1"):
        assert find(findings, what, LAB).verdict == "ok"
    assert find(findings, "GPU 1").text == "NVIDIA H100, 81559 MiB, capability 9.0"


def test_an_old_driver_fails(tools: Path) -> None:
    """torch's wheels need a newer one; the remedy names it."""
    smi(tools, driver="570.86.15", capability="9.0")
    finding = find(examine_place("lab", "auto"), "NVIDIA driver")
    assert (finding.verdict, finding.remedy) == ("fail", "install 580 or newer")


def test_a_driver_too_old_for_a_query_is_still_reported(tools: Path) -> None:
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
    tools: Path, name: str, answer: str
) -> None:
    """Either of its tools tells the version."""
    (tools / "nvidia-ctk").unlink()
    tool(tools, name, f"echo '{answer}'")
    finding = find(examine_place("lab", "auto"), "NVIDIA toolkit")
    assert (finding.verdict, finding.text) == ("fail", "1.17.7; 1.17.8 fixes CVE-2025-23266")


def test_a_missing_toolkit_fails(tools: Path) -> None:
    """Neither of its tools is installed."""
    (tools / "nvidia-ctk").unlink()
    finding = find(examine_place("lab", "auto"), "NVIDIA toolkit")
    assert finding.verdict == "fail"
    assert finding.remedy.startswith("install the NVIDIA Container Toolkit")


SLICES = """\
[ "$1" = -L ] || exit 2
echo 'GPU 0: NVIDIA A100 (UUID: GPU-0)'
echo '  MIG 1g.5gb      Device  0: (UUID: MIG-1)'
"""


def test_a_slice_is_named(tools: Path) -> None:
    """With what the course does with it, and that no test ran on one."""
    tool(tools, "nvidia-smi", SLICES)
    finding = find(examine_place("lab", "auto"), "GPU 0:0")
    assert finding.verdict == "ok"
    assert finding.text.startswith("NVIDIA A100 MIG 1g.5gb; a run gets one slice; tests read lists")


def test_a_driver_that_hangs_fails(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute, in one line; the rest of the machine is examined all the same."""
    monkeypatch.setattr(program, "TIMEOUT_S", 0.5)
    tool(tools, "nvidia-smi", "sleep 600")
    findings = examine_place("lab", "auto")
    finding = find(findings, "GPUs")
    assert finding.text.startswith("nvidia-smi gave no answer in 0.5 s: the driver hangs")
    assert find(findings, "Docker engine").verdict == "ok"
