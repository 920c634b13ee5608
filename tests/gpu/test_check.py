"""The checks on hardware, as far as a machine without a GPU can run them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.gpu import check

pytestmark = pytest.mark.skipif(bool(shutil.which("nvidia-smi")), reason="there may be a GPU")


@pytest.mark.kernel
def test_a_killed_kernel_leaves_nothing(tmp_path: Path) -> None:
    """The check passes here, and so do the others that need no GPU."""
    assert check.main(str(tmp_path), "too_many,kill") == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert [(each["check"], each["status"]) for each in found] == [
        ("too_many", "ok"),
        ("kill", "ok"),
    ]


def test_what_needs_a_gpu_is_skipped(tmp_path: Path) -> None:
    """It counts neither as passed nor as failed."""
    assert check.main(str(tmp_path), "turns,devices") == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert {(each["status"], each["text"]) for each in found} == {("skipped", "no GPU")}


def test_a_check_that_fails_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its reason; the exit status is 1."""

    def broken(machine: check.Machine) -> str:
        raise AssertionError("a wrong value")

    monkeypatch.setattr(check, "CHECKS", (broken,))
    assert check.main(str(tmp_path)) == 1
    assert "broken: failed" in capsys.readouterr().out
    assert "a wrong value" in (tmp_path / "gpu.txt").read_text()
