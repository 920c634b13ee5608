"""The options that people expect of a command line.

The cases are from this project's own reviews.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ci import command_line
from ci.execute.events import CellStarted, Started
from ci.lesson import oracle, reader
from ci.plan import planner
from ci.report import progress, report_files, terminal
from ci.report.progress import Progress
from ci.run import watch
from tests.conftest import GRADIENT, ORACLE, Invoke, Read, Write, eventually


def test_a_dry_run_executes_nothing_and_says_why(course: Path, invoke: Invoke) -> None:
    """The last report stays, too."""
    report = course / "build/report.json"
    report.parent.mkdir()
    report.write_text("{}")
    assert invoke("run", "--on", "here", "--dry-run") == (0, "01_small: execute: never executed\n")
    assert report.exists()
    assert not (course / "build/runs").exists()


@pytest.mark.kernel
def test_without_handouts_a_run_only_checks(course: Path, invoke: Invoke) -> None:
    """The course page stays as it is; a run with other parameters has no summary either."""
    for parameters in ([], ["-p", "size=2,3"]):
        status, output = invoke("run", "--on", "here", "--handouts", "none", *parameters)
        assert (status, "verified" in output) == (0, True)
    assert not {"handouts", "instructors", "sweep"} & {p.name for p in (course / "build").iterdir()}


def test_lint_prints_the_faults_of_all_lessons(invoke: Invoke, write: Write) -> None:
    """Of a script, of an oracle, and of a formula; with status 1."""
    assert invoke("lint") == (0, "1 lesson: no faults\n")
    write("# %% check=1\n1\n# %% tags=paramters\n1\n", name="02_script")
    write(GRADIENT, name="03_oracle")
    formula = '# %% [markdown] lang="en"\n# $\\foo$\n# %% [markdown] lang="zh"\n# 无\n'
    write(formula + GRADIENT, name="04_formula", expected=ORACLE)
    status, output = invoke("lint")
    assert status == 1
    for place in ("02_script.py:", "03_oracle.py:", "04_formula.py:"):
        assert f"lessons/{place}" in output
    assert output.splitlines()[-1] == "4 lessons: 4 faults"
    assert invoke("lint", "01")[0] == 0


@pytest.mark.parametrize("words", ["run", "run 0", "run --lessons", "run -x 0", "prove"])
def test_a_shell_completes_the_names_of_lessons(invoke: Invoke, words: str) -> None:
    """As the scripts ask that `invoke --print-completion-script` prints for bash and fish."""
    status, output = invoke("--complete", "--", "invoke", *words.split())
    assert (status, "01_small" in output.splitlines()) == (0, True)


def test_a_shell_completes_commands_and_options(invoke: Invoke) -> None:
    """No lessons for a command that takes none."""
    assert "run" in invoke("--complete", "--", "invoke")[1].splitlines()
    assert "--fresh" in invoke("--complete", "--", "invoke", "run", "--f")[1].splitlines()
    assert "01_small" not in invoke("--complete", "--", "invoke", "clean")[1]


def test_the_command_course_names_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which `invoke --version` cannot, since Invoke ends before it reads tasks.py."""
    monkeypatch.setattr("sys.argv", ["course", "--version"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("pytorch-course ")


def test_new_writes_a_lesson_that_has_no_faults(course: Path, invoke: Invoke) -> None:
    """A number that is taken, or a name that is no name, is status 2."""
    status, output = invoke("new", "06_mean")
    assert (status, output.splitlines()[-1]) == (0, "verify it with: invoke run 06_mean")
    assert invoke("lint")[0] == 0
    for name in ("06_other", "mean", "../07_up", "07_", "７7_up", "07_" + "x" * 300, "", "7_mean"):
        status, output = invoke("new", *([name] if name else []))
        assert (status, "invoke new 07_" in output or "such as 07_mean" in output) == (2, True)


@pytest.mark.parametrize("word", ["lambda", "size", "torch", "x", "np"])
def test_new_takes_any_word(course: Path, invoke: Invoke, word: str) -> None:
    """A keyword, or a name that the lesson or its oracle uses, is no check's name."""
    assert invoke("new", f"06_{word}")[0] == 0
    assert invoke("lint") == (0, "2 lessons: no faults\n")
    [expected] = oracle.load(reader.read(course / f"lessons/06_{word}.py")).values()
    assert expected.value({"size": 5}).value == 2


def test_without_a_report_everything_may_have_failed(tmp_path: Path) -> None:
    """The report of a run that could not start is gone."""
    assert report_files.failed(tmp_path) is None


def test_progress_says_where_a_run_is(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elapsed and expected time, the cell, and the heading above it."""
    lesson = read(
        '# %% [markdown] lang="en"\n# ## Slopes\n# %% [markdown] lang="zh"\n# ## 斜率\n' + GRADIENT
    )
    now = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(progress, "time", now)
    run = planner.Run(lesson, lesson.defaults)
    known = Progress(run, expected_s=70.4)
    assert known.start == "01_small: started, about 1:10 expected"
    known.on_event(Started(run, 0, 0.0))
    now.monotonic = lambda: 134.5
    assert known.line == "01_small: 0:34 of about 1:10, starting"
    known.on_event(CellStarted(run, 0, 5))  # the time of imports does not count
    now.monotonic = lambda: 169.0
    known.on_event(CellStarted(run, len(lesson.notebook.cells) - 1, len(lesson.notebook.cells)))
    count = len(lesson.notebook.cells)
    assert known.line == f"01_small: 0:34 of about 1:10, cell {count}/{count}, Slopes"


def test_progress_names_the_job_of_a_cluster(read: Read) -> None:
    """And its node, in front of the cell."""
    lesson = read()
    run = planner.Run(lesson, lesson.defaults)
    known = Progress(run)
    known.on_event(Started(run, 0, 0.0, job="12 (n2)"))
    assert known.start == "01_small: started in Slurm job 12 (n2)"
    known.on_event(CellStarted(run, 2, 7))
    assert known.place.startswith("Slurm job 12 (n2), cell 3/7")


def test_a_log_shows_that_runs_go_on(
    read: Read, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line at the start, and one at each heartbeat."""
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.01)
    lesson = read()
    run = planner.Run(lesson, lesson.defaults)
    printed = ""

    def has_beaten() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "01_small: 0:00, starting" in printed

    with terminal.Terminal([run]) as shown:
        shown.on_event(Started(run, 0, 0.0))
        assert eventually(has_beaten)
    assert printed.startswith("01_small: started\n")


def test_a_saved_file_names_its_lessons(course: Path, write: Write) -> None:
    """A script and its oracle belong to a lesson; what several may read, to all."""
    write(name="02_other", expected=ORACLE)
    folder = course / "lessons"
    for path, names in {
        "02_other.py": ["02_other"],
        "expected/01_small.py": ["01_small"],
        "parallel/ring.py": ["01_small", "02_other"],
        "data.csv": ["01_small", "02_other"],
        "03_gone.py": [],
    }.items():
        assert watch.changed_lessons({folder / path}, "", course) == names
    assert watch.changed_lessons({folder / "02_other.py"}, "01", course) == []
