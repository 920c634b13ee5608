"""The choice of an executor on a machine where no Docker engine answers."""

import pytest

from ci.errors import MachineError, UsageError
from ci.execute import executor
from ci.execute.local import LocalExecutor
from tests.conftest import DOCKER


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.delenv("COURSE_ON", raising=False)


def test_an_unknown_executor_is_the_command_lines_fault() -> None:
    """The message lists the valid words."""
    with pytest.raises(UsageError, match="--on moon: expected auto, here, lab or slurm"):
        executor.choose("moon", [], DOCKER)


def test_auto_selects_this_machine_if_no_engine_answers() -> None:
    """A remark has the reason."""
    where, remarks = executor.choose("auto", [], DOCKER)
    assert isinstance(where, LocalExecutor)
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in remarks[0]


def test_lab_without_an_engine_is_the_machines_fault() -> None:
    """The executor is strict and has no fallback."""
    with pytest.raises(MachineError, match="no Docker engine answers"):
        executor.choose("lab", [], DOCKER)


def test_a_pinned_lab_is_never_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """With COURSE_ON=lab, `--on auto` is as strict as `--on lab`."""
    monkeypatch.setenv("COURSE_ON", "lab")
    with pytest.raises(MachineError, match="no Docker engine answers"):
        executor.choose("auto", [], DOCKER)


def test_the_command_line_comes_before_the_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--on here` is a decision of its own."""
    monkeypatch.setenv("COURSE_ON", "lab")
    assert isinstance(executor.choose("here", [], DOCKER)[0], LocalExecutor)


def test_a_misspelt_pin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not mean the default, which may leave the lab."""
    monkeypatch.setenv("COURSE_ON", "lap")
    with pytest.raises(UsageError, match="^COURSE_ON=lap: expected auto, here, lab or slurm"):
        executor.choose("auto", [], DOCKER)
