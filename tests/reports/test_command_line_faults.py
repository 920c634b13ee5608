"""Faults of the command line end with status 2 and one line, and nothing is lost.

Cases without an address are from this project's own reviews.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Invoke, Write

TASKS = Path(__file__).parents[2] / "tasks.py"


FAULTS = {
    "run --lesson 01": "did you mean '--lessons'?",
    "--json": "--json: no option of Invoke",
    "run --json": "invoke run --json: no such option",
    "run 90": "--lessons 90: no such lesson; expected one of: 01_small",
    "run 01 smal": "did you mean '01_small'?",
    "runn": "invoke runn: no such command; did you mean 'run'?",
    "frobnicate": "no such command; expected one of: ",
    "--help runn": "did you mean 'run'?",
    "--list nothing": "'nothing' not found",
    "run -z": "invoke run -z: no such option",
    "run -p": "-p: needs a value",
    "run --fresh=yes": "--fresh takes no value",
    "run --gpus none --gpus 1": "--gpus: given twice",
    "run 01 --lessons 01": "name the lessons once",
    "run -- 01": "remove the --",
    "run -psise=3": "did you mean 'size'?",
    "clean now": "invoke clean now: this command takes options alone",
    "serve --port": "--port: needs a value",
    "run -=x": "invoke run -: no such option",
    "-F xml --list": "--list-format xml: expected flat, nested or json",
    "-f settings.odd run": "Invoke's settings (--config, INVOKE_*): Config files of type",
    **{
        f"{words} {'9' * 5000}": "a number of more than 4300 digits"
        for words in ("run", "lint", "run --gpus", "serve --port", "prove --sample")
    },
}


# https://github.com/pyinvoke/invoke/issues/269
@pytest.mark.parametrize("words", FAULTS)
def test_a_typing_error_is_status_2(course: Path, invoke: Invoke, words: str) -> None:
    """One line names the fault and the nearest right word; the last report stays."""
    report = course / "build/report.json"
    report.parent.mkdir()
    report.write_text("{}")
    status, output = invoke(*words.split())
    assert (status, len(output.strip().splitlines())) == (2, 1), output
    assert FAULTS[words] in output
    assert report.exists()
    assert not (course / "build/runs").exists()


@pytest.mark.parametrize(
    "words", ["--jobs 0", "--timeout soon", "--lessons nope", "--on moon", "--gpus some"]
)
def test_an_invalid_value_keeps_the_last_report(course: Path, invoke: Invoke, words: str) -> None:
    """The plan is not valid, so nothing replaces the report."""
    report = course / "build/report.json"
    report.parent.mkdir()
    report.write_text("{}")
    assert invoke("run", *words.split())[0] == 2
    assert report.exists()


def test_a_malformed_lesson_leaves_no_green_report(
    course: Path, invoke: Invoke, write: Write
) -> None:
    """The course is at fault, so the report of the last run is no longer true."""
    report = course / "build/report.json"
    report.parent.mkdir()
    report.write_text("{}")
    write("# %% check=1\n1\n")
    assert invoke("run")[0] == 1
    assert not report.exists()


@pytest.mark.parametrize("words", ["run -h", "run --help", "run 01 -h", "--help run", "-h run"])
def test_help_of_a_command_is_help(invoke: Invoke, words: str) -> None:
    """`-h` is no abbreviation of another option, and nothing runs."""
    status, output = invoke(*words.split())
    assert status == 0
    assert "--lessons=STRING" in output


@pytest.mark.parametrize("words", ["--version", "-V", "run --version", "run 01 -V"])
def test_version_runs_nothing(course: Path, invoke: Invoke, words: str) -> None:
    """Also after the name of a command."""
    status, output = invoke(*words.split())
    assert status == 0
    assert "Invoke" in output
    assert not (course / "build").exists()


def test_an_ambiguous_number_names_both_lessons(invoke: Invoke, write: Write) -> None:
    """A number, and a name without its number."""
    write(name="90_a")
    write(name="90_b")
    write(name="91_b")
    status, output = invoke("run", "90")
    assert (status, output) == (
        2,
        "--lessons 90: could be 90_a or 90_b: write the whole name\n",
    )
    assert invoke("run", "b")[0] == 2


@pytest.mark.parametrize("words", [["\udcff"], ["--\udcff"], ["--lessons", "\udcff"]])
def test_half_a_character_gets_one_line(invoke: Invoke, words: list[str]) -> None:
    """Which escapes it."""
    status, output = invoke("run", *words)
    assert (status, len(output.splitlines()), "\\udcff" in output) == (2, 1, True)


def test_half_a_character_is_no_traceback(course: Path) -> None:
    """An argument that is no UTF-8 reaches Python as a lone surrogate."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "run", "-p", b"size=\xff"],
        cwd=course,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def pipe_to_head(command: list[str], folder: Path) -> tuple[int, str]:
    """Status and error lines of a command whose reader ends after its first line."""
    script = 'exec 3>&1; { "$@" 2>&3; echo "status $?" >&3; } | head -1 > head.txt'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TASKS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    *errors, status = done.stdout.splitlines()
    return int(status.removeprefix("status ")), "\n".join(errors)


# https://github.com/python/cpython/issues/90650
def test_a_list_into_head_is_no_fault(course: Path) -> None:
    """`invoke --list | head -1` prints its line and ends well."""
    assert pipe_to_head([sys.executable, "-m", "invoke", "--list"], course) == (0, "")


@pytest.mark.parametrize("console", ["console import PatientConsole", "lines import Log"])
def test_a_report_that_nobody_reads_goes_on(tmp_path: Path, console: str) -> None:
    """The console says it once, and raises no SystemExit(1) as Rich does."""
    code = (
        f"import sys, time; from ci.report.{console} as Printer\n"
        "console = Printer(); console.print('first'); time.sleep(0.5)\n"
        "for _ in range(9): console.print('more')\n"
        "sys.exit(7)"
    )
    status, errors = pipe_to_head([sys.executable, "-uc", code], tmp_path)
    assert (status, errors) == (7, "nobody reads the output any more; the command goes on")


def test_a_character_that_the_terminal_lacks_is_no_traceback(course: Path, write: Write) -> None:
    """A check mark in GBK, which has none."""
    write("# %% check='✓'\n1\n")
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "run", "✓"],
        cwd=course,
        env={**os.environ, "PYTHONIOENCODING": "gbk", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert b"\\u2713" in done.stderr


@pytest.mark.parametrize("folder", ["records", "runs"])
def test_a_folder_that_cannot_be_written_is_the_machines_fault(
    course: Path, invoke: Invoke, folder: str
) -> None:
    """A file in its place stands for a folder without rights, which root has."""
    (course / "build").mkdir()
    (course / "build" / folder).write_text("")
    status, output = invoke("run", "--on", "here")
    assert (status, len(output.strip().splitlines())) == (3, 1), output
    assert output.startswith(str(course / "build"))
