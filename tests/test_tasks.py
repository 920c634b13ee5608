"""The commands as people type them, in a small course."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jinja2
import pytest
import requests
from invoke.main import program

from tests.conftest import GRADIENT, HEADER, ORACLE, Write, eventually, write_lesson

TASKS = Path(__file__).parents[1] / "tasks.py"
FORMULA = '# %%%% [markdown] lang="en"\n# $%s$\n# %%%% [markdown] lang="zh"\n# 无\n'
FULL = "/disk: No space left on device: make room; invoke clean removes old runs"
WRONG = GRADIENT.replace("4.0", "6.0")


@pytest.fixture
def course(tmp_path: Path, write: Write) -> Path:
    """A course of one lesson with the project's tasks."""
    shutil.copy(TASKS, tmp_path)
    write(expected=ORACLE)
    return tmp_path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A course after its first run, with the exit status and the output of the run."""
    folder = tmp_path_factory.mktemp("published") / "course"
    write_lesson(folder, expected=ORACLE)
    shutil.copy(TASKS, folder)
    status, output = invoke(folder)
    shutil.copytree(folder, folder.with_name("copy"))
    return folder, status, output


@pytest.fixture
def verified(published: tuple[Path, int, str]) -> Path:
    """This course as its first run left it. Its results are valid only in this folder."""
    folder = published[0]
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    return folder


def command(*words: str) -> list[str]:
    """The command `invoke run` with this interpreter."""
    return [sys.executable, "-m", "invoke", "run", "--on", "here", *words]


def invoke(course: Path, *words: str) -> tuple[int, str]:
    """Exit status and output of `invoke run`."""
    done = subprocess.run(
        command(*words), cwd=course, capture_output=True, text=True, check=False, timeout=300
    )
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    return done.returncode, output


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.kernel
def test_a_verified_course_is_published(published: tuple[Path, int, str]) -> None:
    """With exit status 0, the table, and six handouts per lesson."""
    course, status, output = published
    assert status == 0
    assert re.search(r"01_small +cpu +1/1 .* verified", output)
    assert len(list((course / "build/handouts").glob("??/01_small.*"))) == 6


@pytest.mark.kernel
def test_a_mismatch_fails_the_build(verified: Path) -> None:
    """With exit status 1; the published handouts stay unchanged."""
    before = files(verified / "build/handouts")
    write_lesson(verified, WRONG)
    status, output = invoke(verified)
    assert status == 1
    assert "lessons/01_small.py:18: check 'gradient' largest difference 6" in output
    assert files(verified / "build/handouts") == before


@pytest.mark.kernel
def test_a_lesson_that_exits_fails_and_names_the_missing_checks(course: Path, write: Write) -> None:
    """Although `sys.exit(0)` ends a kernel without an error."""
    write("# %%\nimport sys; sys.exit(0)\n" + GRADIENT)
    status, output = invoke(course)
    assert status == 1
    assert "01_small: never reported: gradient" in output


@pytest.mark.kernel
def test_a_script_without_checks_is_unchecked(course: Path, write: Write) -> None:
    """An ordinary script runs, and is not green."""
    write("# %%\nprint(1)\n", header="", name="02_plain")
    status, output = invoke(course)
    assert status == 1
    assert "02_plain: unchecked (the lesson declares no check)" in output


@pytest.mark.kernel
def test_a_value_without_a_check_is_not_green(course: Path, write: Write) -> None:
    """The message has the line and the remedy."""
    write(GRADIENT + "# %%\n1 + 1\n")
    status, output = invoke(course)
    assert status == 1
    assert "01_small unchecked: lessons/01_small.py:20: a cell shows a value without" in output


@pytest.mark.kernel
def test_a_sweep_writes_a_summary(course: Path) -> None:
    """Three values are three runs, and the course page is not written."""
    status, output = invoke(course, "-p", "size=2,4,16")
    assert status == 0
    assert output.count(": verified") == 3
    assert (course / "build/sweep/index.html").exists()
    assert not (course / "build/handouts").exists()


def count_attempts(course: Path) -> int:
    """The number of executions."""
    return len(list((course / "build/runs").glob("*/*/*")))


@pytest.mark.kernel
def test_an_unchanged_run_imports_nothing_that_only_others_need(verified: Path) -> None:
    """It ends before any of these libraries could be loaded."""
    for _ in range(2):  # the first run after an execution renews the course page
        timed = [sys.executable, "-X", "importtime", *command()[1:]]
        done = subprocess.run(timed, cwd=verified, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ci.run.run" in imported
    assert not imported & {"numpy", "nbformat", "rich", "jsonschema", "typst", "pypandoc"}
    assert not imported & {"ci.execute.engine", "ci.judge.verdicts", "ci.handout.handout"}


@pytest.mark.kernel
def test_an_unchanged_run_is_not_executed_again(verified: Path) -> None:
    """Its handouts stay the same, unless `--fresh` is given."""
    before = files(verified / "build/handouts")
    status, output = invoke(verified)
    assert (status, count_attempts(verified)) == (0, 1)
    assert re.search(
        r"01_small: unchanged since 20\d\d-\d\d-\d\d \d\d:\d\d UTC, checks 1/1", output
    )
    after = files(verified / "build/handouts")
    assert {name for name in after if after[name] != before[name]} == {
        *("index.html", "index.zh.html", "index.json", "handouts.zip")
    }
    status, output = invoke(verified, "--fresh")
    assert (status, count_attempts(verified), "unchanged" in output) == (0, 2, False)


@pytest.mark.kernel
def test_missing_handouts_are_made_from_the_last_attempt(verified: Path) -> None:
    """The files are identical, and no kernel starts."""
    before = files(verified / "build/handouts/zh")
    shutil.rmtree(verified / "build/handouts")
    status, output = invoke(verified)
    assert (status, count_attempts(verified), "unchanged since" in output) == (0, 1, True)
    assert files(verified / "build/handouts/zh") == before


@pytest.mark.kernel
def test_a_changed_oracle_judges_without_a_kernel(verified: Path) -> None:
    """A wrong oracle fails the build, and the right one verifies it, with one execution."""
    write_lesson(verified, expected=ORACLE.replace("4 * np", "6 * np"))
    status, output = invoke(verified)
    assert (status, count_attempts(verified)) == (1, 1)
    assert "check 'gradient' largest difference 6" in output
    write_lesson(verified, expected=ORACLE)
    status, output = invoke(verified)
    assert (status, count_attempts(verified)) == (0, 1)
    assert "01_small: verified (executed 20" in output


@pytest.mark.kernel
def test_a_modified_attempt_is_executed_again(verified: Path) -> None:
    """Its notebook is not the one that was verified."""
    (notebook,) = (verified / "build/runs").glob("*/*/*/executed.ipynb")
    notebook.write_text(notebook.read_text().replace("4.", "5.", 1))
    status, output = invoke(verified)
    assert (status, count_attempts(verified), "unchanged" in output) == (0, 2, False)


@pytest.mark.kernel
def test_clean_keeps_the_attempts_of_the_course(verified: Path) -> None:
    """Runs of a sweep are removed, and the course stays unchanged."""
    invoke(verified, "-p", "size=2,3")
    clean = [sys.executable, "-m", "invoke", "clean"]
    subprocess.run(clean, cwd=verified, check=True)
    assert count_attempts(verified) == 1
    assert "unchanged since" in invoke(verified)[1]


BAD = {
    "--lessons 7: no such lesson": ["--lessons", "7"],
    "did you mean 'size'": ["-p", "sise=3"],
    "must be at most 64": ["-p", "size=65"],
    "must be a whole number": ["-p", "size=(1, 2)"],
    "--gpus some: expected auto": ["--gpus", "some"],
    "--handouts some: expected default": ["--handouts", "some"],
    "--timeout soon: must be": ["--timeout", "soon"],
    "--jobs 0: must be": ["--jobs", "0"],
}


@pytest.fixture
def invoke_here(
    course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """`invoke run` in this process, which is faster, for runs that end before they start."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(course)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            program.run(["invoke", "run", "--on", "here", *words])
        assert isinstance(ended.value.code, int)
        return ended.value.code, "".join(capsys.readouterr())

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("message", BAD)
def test_an_invalid_command_line_gets_one_line_and_status_2(
    course: Path, invoke_here: Callable[..., tuple[int, str]], message: str
) -> None:
    """The line says what would be valid, and nothing starts."""
    status, output = invoke_here(*BAD[message])
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
    write: Write, invoke_here: Callable[..., tuple[int, str]], cells: str, message: str
) -> None:
    """If it cannot be read, checked or typeset, the line has file and line number."""
    write(cells)
    status, output = invoke_here()
    assert (status, len(output.strip().splitlines())) == (1, 1)
    assert "lessons/01_small.py:" in output
    assert message in output


def test_a_build_folder_that_cannot_be_written_is_the_machines_fault(
    course: Path, invoke_here: Callable[..., tuple[int, str]]
) -> None:
    """With one line and exit status 3."""
    (course / "build").write_text("a file")
    status, output = invoke_here()
    assert (status, len(output.strip().splitlines())) == (3, 1)


@pytest.mark.kernel
def test_brackets_in_a_parameter_are_not_markup(course: Path, write: Write) -> None:
    """Rich would read [/x] as a closing tag."""
    write(header=HEADER.replace("size: int = 4", 's: str = "a"  # a text\nsize: int = 4'))
    status, output = invoke(course, "-p", "s=[/x]")
    assert (status, "s=[/x]" in output) == (0, True)


def test_missing_gpus_are_the_machines_fault(invoke_here: Callable[..., tuple[int, str]]) -> None:
    """A strict `--gpus` ends with one line and exit status 3."""
    status, output = invoke_here("--gpus", "64")
    assert (status, len(output.strip().splitlines())) == (3, 1)


@pytest.mark.kernel
def test_a_lesson_that_needs_a_gpu_is_skipped(verified: Path) -> None:
    """The exit status is 0 with `none` and 3 with `all`; it is never verified."""
    write_lesson(
        verified, header=HEADER.replace("{min: 0, max: 1}", "{min: 64, max: 64}"), name="02_gpu"
    )
    (verified / "lessons/expected/02_gpu.py").write_text(ORACLE)
    for gpus, expected in (("none", 0), ("all", 3)):
        status, output = invoke(verified, "--gpus", gpus)
        assert status == expected
        assert re.search(r"02_gpu.* needs 64 GPUs", output)
    assert not (verified / "build/handouts/en/02_gpu.html").exists()


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_publishes_nothing(
    course: Path, write: Write, number: signal.Signals
) -> None:
    """With exit status 1, one line, no handouts, and no incomplete attempt."""
    write("# %%\nopen('started', 'w').close()\nimport time; time.sleep(600)\n", header="")
    (course / "lessons/expected/01_small.py").unlink()
    process = subprocess.Popen(
        command(), cwd=course, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while not (course / "lessons/started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.strip().splitlines()[-1] == "interrupted; nothing was published"
    assert not (course / "build/handouts").exists()


@pytest.mark.kernel
def test_two_invocations_in_one_checkout_take_turns(course: Path, write: Write) -> None:
    """The second says that it waits, and neither removes the attempts of the other."""
    write("# %%\nimport time; time.sleep(3)\n" + GRADIENT, expected=ORACLE)
    both = [
        subprocess.Popen(
            command("--fresh"),
            cwd=course,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("waiting until it ends" in output for output in outputs) == [False, True]


@pytest.mark.kernel
def test_a_run_under_nohup_outlives_its_terminal(course: Path, write: Write) -> None:
    """A SIGHUP that was ignored at the start stays ignored."""
    write("# %%\nimport time; time.sleep(3)\n" + GRADIENT, expected=ORACLE)
    process = subprocess.Popen(
        ["nohup", *command()], cwd=course, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert eventually(lambda: list((course / "build/runs").glob("*/*/.*")), 60)
    process.send_signal(signal.SIGHUP)
    assert process.wait(300) == 0


@pytest.fixture
def invoke_and_raise(
    invoke_here: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException], tuple[int, str]]:
    """`invoke run` in this process, in which an error is raised."""

    def run(error: BaseException) -> tuple[int, str]:
        def fail(*_: object) -> NoReturn:
            raise error

        monkeypatch.setattr("ci.run.run.run", fail)
        return invoke_here()

    return run


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
