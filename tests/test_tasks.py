"""The commands as people type them: what is refused, with one line and the exit status."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import jinja2
import pytest
import requests

from tests.conftest import GRADIENT, Invoke, Write

FORMULA = '# %%%% [markdown] lang="en"\n# $%s$\n# %%%% [markdown] lang="zh"\n# 无\n'
FULL = "/disk: No space left on device: make room; invoke clean removes old runs"
BAD = {
    "must be at most 64": ["-p", "size=65"],
    "must be a whole number": ["-p", "size=(1, 2)"],
    "--gpus some: expected auto": ["--gpus", "some"],
    "--handouts some: expected default": ["--handouts", "some"],
    "--timeout soon: must be": ["--timeout", "soon"],
    "--jobs 0: must be": ["--jobs", "0"],
}


@pytest.fixture
def run(invoke: Invoke) -> Invoke:
    """`invoke run` on this machine, in this process."""
    return partial(invoke, "run", "--on", "here")


@pytest.mark.parametrize("message", BAD)
def test_an_invalid_command_line_gets_one_line_and_status_2(
    course: Path, run: Invoke, message: str
) -> None:
    """The line says what would be valid, and nothing starts."""
    status, output = run(*BAD[message])
    assert (status, len(output.strip().splitlines())) == (2, 1)
    assert message in output
    assert not (course / "build/runs").exists()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (GRADIENT * 2, "a second check 'gradient'"),
        (FORMULA % r"\foo{1}" + GRADIENT, r"\foo"),
        (FORMULA % r"\frac{1" + GRADIENT, r"\frac"),
        (GRADIENT.replace("gradient", "gradent"), "define a function of that name"),
    ],
)
def test_a_malformed_lesson_gets_one_line_and_status_1(
    write: Write, run: Invoke, cells: str, message: str
) -> None:
    """If it cannot be read, checked or typeset, the line has file and line number."""
    write(cells)
    status, output = run()
    assert (status, len(output.strip().splitlines())) == (1, 1)
    assert "lessons/01_small.py:" in output
    assert message in output


def test_a_build_folder_that_cannot_be_written_is_the_machines_fault(
    course: Path, run: Invoke
) -> None:
    """With one line and exit status 3."""
    (course / "build").write_text("a file")
    status, output = run()
    assert (status, len(output.strip().splitlines())) == (3, 1)


def test_missing_gpus_are_the_machines_fault(run: Invoke) -> None:
    """A strict `--gpus` ends with one line and exit status 3."""
    status, output = run("--gpus", "64")
    assert (status, len(output.strip().splitlines())) == (3, 1)


@pytest.fixture
def invoke_and_raise(
    run: Invoke, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException], tuple[int, str]]:
    """`invoke run` in this process, in which an error is raised."""

    def run_and_raise(error: BaseException) -> tuple[int, str]:
        def fail(*_: object) -> NoReturn:
            raise error

        monkeypatch.setattr("ci.run.run.run", fail)
        return run()

    return run_and_raise


@pytest.mark.parametrize(
    "error",
    [
        jinja2.TemplateNotFound("page"),
        requests.ConnectionError(),
        OSError("no number"),
        KeyError("a bug"),
    ],
    ids=repr,
)
def test_a_bug_shows_its_traceback(
    invoke_and_raise: Callable[[BaseException], tuple[int, str]], error: Exception
) -> None:
    """Although the exceptions of some libraries are OSErrors."""
    with pytest.raises(type(error)):
        invoke_and_raise(error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "/disk"), FULL),
        (shutil.Error([("a", "/disk", "[Errno 28] No space left: 'a' -> '/disk'")]), FULL),
        (ConnectionRefusedError(111, "Connection refused"), "the machine: Connection refused"),
    ],
)
def test_an_error_of_files_and_sockets_is_the_machines_fault(
    invoke_and_raise: Callable[[BaseException], tuple[int, str]], error: OSError, line: str
) -> None:
    """It gets one line and exit status 3."""
    assert invoke_and_raise(error) == (3, f"{line}\n")
