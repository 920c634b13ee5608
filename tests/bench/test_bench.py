"""The benchmark: what counts, what is compared, how it reports. No test asserts how fast we are."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from rich.console import Console

from ci.errors import CourseError, UsageError
from ci.lesson import oracle, reader
from tests.bench import benchmark, contenders, report, stopwatch
from tests.bench.benchmark import SMALL
from tests.bench.report import CONTENDERS, ROWS, TARGETS, Contender, Result, Row, Target
from tests.bench.stopwatch import Sample
from tests.conftest import GRADIENT, ORACLE, Read, Write

ROOT = Path(__file__).parents[2]
TARGET = Target("title", "lessons", "wall_s", "checked", 0.6, 0.45, ("pool", "nbmake"))


def result(**times: Sequence[float]) -> Result:
    """A result of the row `lessons` with these wall times, round by round."""
    rounds = [dict(zip(times, walls, strict=True)) for walls in zip(*times.values(), strict=True)]
    samples = [{name: Sample(wall, wall) for name, wall in walls.items()} for walls in rounds]
    return Result(ROWS["lessons"], samples)


def fake(name: str, value: str = "1", **fields: object) -> Contender:
    """A contender that shows this value in its one notebook at once."""
    output = {"output_type": "execute_result", "data": {"text/plain": value}}
    cells = [{"metadata": {"check": "gradient"}, "outputs": [output]}]
    script = f"printf %s {shlex.quote(json.dumps({'cells': cells}))} > shown"
    return replace(Contender(name, name, script, results="shown"), **fields)


@pytest.fixture
def work(write: Write, tmp_path: Path) -> Path:
    """A project with one small lesson."""
    benchmark.prepare([write(expected=ORACLE)], ROOT, tmp_path / "work")
    return tmp_path / "work"


def measure(work: Path, *contenders: Contender, **fields: object) -> Result:
    """One round of these contenders."""
    row = replace(Row("r", "a row", contenders), **fields)
    return benchmark.measure(row, work, rounds=1)


# The command line


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_rounds_are_a_whole_number(text: str) -> None:
    """Anything else is an error of usage."""
    with pytest.raises(UsageError, match=f"--rounds {re.escape(text)}: must be a whole number"):
        benchmark.parse("", text)
    assert benchmark.parse("", "3")[1] == 3


def test_rows_are_chosen_by_name_and_keep_their_order() -> None:
    """Without names, all rows are measured."""
    assert benchmark.parse("", "1")[0] == list(ROWS.values())
    assert benchmark.parse("200, lessons", "1")[0] == [ROWS["lessons"], ROWS["200"]]
    with pytest.raises(UsageError, match="no such row; did you mean 'unchanged'"):
        benchmark.parse("unchangd", "1")
    with pytest.raises(UsageError, match="no such row; expected one of"):
        benchmark.parse(",", "1")


def test_a_bad_option_is_one_line() -> None:
    """The exit status is 2, and there is no traceback."""
    command = [sys.executable, "-m", "invoke", "bench", "--rounds", "few"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "--rounds few: must be a whole number from 1\n"


# Rows, contenders and targets


def test_each_target_is_of_contenders_of_its_row() -> None:
    """A target with a misspelt name would never be measured."""
    for target in TARGETS:
        names = {contender.name for contender in ROWS[target.row].contenders}
        assert {target.contender, *target.against} <= names
        assert target.aim <= target.limit


# The workload


def test_competitors_get_notebooks_with_parameters_and_without_errors(read: Read) -> None:
    """Papermill stops at a cell that raises, so exactly the declared type is caught."""
    lesson = read('# %% raises="ValueError"\nint("a")\n' + GRADIENT)
    made = benchmark.notebook(lesson.notebook, 3)
    nbformat.validate(made)
    sources = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert sources[0] == "size: int = 4  # length of the vector\nseed = 3"
    assert sources[2] == 'try:\n    int("a")\nexcept ValueError as error:\n    print(error)'
    assert 'int("a")' in [cell.source for cell in lesson.notebook.cells]


def test_contenders_have_the_same_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own setting reaches none of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    variables = benchmark.environment(Row("r", "a row", []), fake("a"), tmp_path)
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "4"
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_part_of_a_sweep_is_its_beginning(tmp_path: Path) -> None:
    """The runs have the same names and seeds as in the whole sweep."""
    benchmark.prepare([SMALL / "09_regression.py"], ROOT, tmp_path / "work", seeds=3)
    notebooks = sorted((tmp_path / "work" / "notebooks").glob("*.ipynb"))
    assert [path.stem[-4:] for path in notebooks] == ["-001", "-002", "-003"]
    assert "seed = 2" in notebooks[1].read_text()
    row = Row("r", "a row", [fake("a"), fake("part", first=2)], seeds=3)
    options = [benchmark.environment(row, each, tmp_path)["OPTIONS"] for each in row.contenders]
    assert options == ["-p seed=1,2,3", "-p seed=1,2"]


def test_a_workload_holds_the_chosen_lessons(write: Write, tmp_path: Path) -> None:
    """As notebooks, with what they import; the notebooks have no expected values."""
    wanted = write(expected=ORACLE)
    write(name="02_other", expected=ORACLE)
    (wanted.parent / "parallel").mkdir()
    (wanted.parent / "parallel" / "ring.py").write_text("a = 1\n")
    benchmark.prepare([wanted], ROOT, tmp_path / "work")
    lessons, notebooks = tmp_path / "work" / "lessons", tmp_path / "work" / "notebooks"
    assert (lessons / "expected" / "01_small.py").exists()
    assert (notebooks / "parallel" / "ring.py").exists()
    assert not (notebooks / "expected").exists()
    assert not list(notebooks.glob("*.py"))
    assert [path.name for path in notebooks.glob("*.ipynb")] == ["01_small-000.ipynb"]


def test_the_small_lesson_is_a_lesson() -> None:
    """Each of its checks has an oracle."""
    lesson = reader.read(SMALL / "09_regression.py")
    assert {*oracle.load(lesson)} == {check.name for check in lesson.checks}
    assert [*lesson.parameters] == ["seed", "size", "steps", "lr"]


# Rounds


def test_contenders_take_turns(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In as many rounds as there are contenders, each has each place once."""
    row = Row("r", "a row", [fake("a"), fake("b"), fake("c")])
    found = benchmark.measure(row, work, rounds=2)
    said = [line.removeprefix("r: round ") for line in capsys.readouterr().out.splitlines()]
    assert said == [
        *("1 of 2: a", "1 of 2: b", "1 of 2: c"),
        *("2 of 2: b", "2 of 2: c", "2 of 2: a"),
    ]
    assert [len(found.figures(name, "wall_s")) for name in "abc"] == [2, 2, 2]


def test_a_contender_that_shows_another_value_has_no_time(work: Path) -> None:
    """The fault names the check and both values."""
    found = measure(work, fake("reference"), fake("same"), fake("other", "2"))
    differs = "differs at 01_small-000 gradient: shows 2, the reference 1"
    assert found.faults == {"other": differs}
    times = [found.figures(name, "wall_s") for name in ("reference", "same", "other")]
    assert [len(walls) for walls in times] == [1, 1, 0]


def test_values_are_compared_check_by_check() -> None:
    """Of the notebooks that both executed; a check that shows nothing differs."""
    expected = {"a x": "1", "a y": "3", "b x": "5"}
    benchmark.compare(expected, expected, ["a", "b"])
    benchmark.compare({"a x": "1", "a y": "3"}, expected, ["a"])
    with pytest.raises(CourseError, match="differs at a y: shows nothing, the reference 3"):
        benchmark.compare({"a x": "1"}, expected, ["a"])
    with pytest.raises(CourseError, match="differs at a z: shows 5, the reference nothing"):
        benchmark.compare({"a z": "5"}, {}, ["a"])


def test_line_breaks_and_names_of_classes_may_differ(work: Path) -> None:
    """IPython breaks long lines and shortens classes; plain Python does neither."""
    kernel = fake("kernel", "(int, tensor([1.,\n  2.]))")
    python = fake("python", "(<class 'int'>, tensor([1., 2.]))")
    assert measure(work, kernel, python).faults == {}


def test_absent_contenders_are_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A contender whose programs are missing does not run, and that is no fault."""
    lacking = fake("lacking", needs=("nosuchprogram", "sh"))
    found = measure(work, fake("a"), lacking)
    assert ([*found.rounds[0]], found.faults) == (["a"], {})
    report.show(found, Console(width=140))
    assert re.search("lacking.* missing here: nosuchprogram ", capsys.readouterr().out)


def test_a_failing_command_says_why(work: Path) -> None:
    """A failing reference ends the benchmark, because there is nothing to compare with."""
    broken = fake("broken", script="echo no disk; (exit 3); echo never")
    found = measure(work, fake("a"), broken)
    assert found.faults == {"broken": "ended with status 3: no disk"}
    with pytest.raises(CourseError, match="r: broken: ended with status 3: no disk"):
        measure(work, broken)


def test_a_late_contender_is_killed_and_stays_in_the_table(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no time, but a reason. A late reference ends the benchmark."""
    late = fake("late", script="sleep 60")
    found = measure(work, fake("a"), late, deadline_s=0.5)
    assert found.faults == {"late": "killed, because it was not done in 0.5 s"}
    report.show(found, Console(width=140))
    assert re.search("late.* killed, because it was not done in 0.5 s", capsys.readouterr().out)
    with pytest.raises(CourseError, match="r: late: killed, because it was not done"):
        measure(work, late, deadline_s=0.5)


# What a process tree takes


def watched(folder: Path, program: str, deadline_s: float = 60.0) -> Sample:
    """What Python takes for this program."""
    (folder / "program.py").write_text(program)
    script = f"{sys.executable} program.py"
    return stopwatch.measure(script, folder, os.environ, deadline_s)


def test_a_daemon_counts_and_is_killed(tmp_path: Path) -> None:
    """It left its parent and its session, but its CPU time is that of the tree."""
    daemon = """
import os, time
if os.fork():
    while not os.path.exists("pid"):
        time.sleep(0.1)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
while time.process_time() < 1:
    pass
open("part", "w").write(str(os.getpid()))
os.rename("part", "pid")
time.sleep(60)
"""
    assert 1.0 <= watched(tmp_path, daemon).cpu_s < 5.0
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    """Here of two processes with 100 MB each, one of which is the child of the other."""
    program = "import os, time\nos.fork()\nb = b'x' * 10**8\ntime.sleep(2)"
    assert 200 < watched(tmp_path, program).peak_mb < 300


def test_the_deadline_kills_the_tree(tmp_path: Path) -> None:
    """Also processes that ignore SIGTERM."""
    program = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(str(os.fork() or 'child'), 'w').write(str(os.getpid()))\ntime.sleep(77)"
    )
    began = time.monotonic()
    with pytest.raises(CourseError, match="not done in 1 s"):
        watched(tmp_path, program, deadline_s=1.0)
    assert time.monotonic() - began < 20
    assert not Path("/proc", (tmp_path / "child").read_text()).exists()


# Ratios and verdicts


def test_a_ratio_is_of_one_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    found = result(pipeline=[1.0, 2.0], pool=[4.0, 8.0])
    assert found.ratios("pool", "wall_s") == [4.0, 4.0]


def test_a_target_is_against_the_best_of_each_round() -> None:
    """Even if that is another contender in each round, or one of them is missing."""
    found = result(checked=[1.0, 1.0], pool=[2.0, 4.0], nbmake=[4.0, 2.0])
    assert report.judge(TARGET, found) == ([0.5, 0.5], "met")
    assert report.judge(TARGET, result(checked=[1.0], pool=[4.0])) == ([0.25], "aim reached")
    for lacking in (result(checked=[1.0]), result(pool=[1.0])):
        assert report.judge(TARGET, lacking) == ([], "not measured")


def test_a_target_may_be_a_difference_or_a_figure() -> None:
    """Such as seconds beyond another command, or memory."""
    found = result(checked=[1.5, 1.0], pool=[1.0, 0.75])
    assert report.judge(replace(TARGET, difference=True), found)[0] == [0.5, 0.25]
    assert report.judge(replace(TARGET, against=()), found)[0] == [1.5, 1.0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([], "not measured"),
        ([0.1, 0.45, 9.0], "aim reached"),
        ([0.5], "met"),
        ([0.6, 0.6], "met"),
        ([0.1, 0.61, 0.7], "missed"),
    ],
)
def test_the_median_decides(values: list[float], verdict: str) -> None:
    """One disturbed round does not."""
    assert report.judge(replace(TARGET, against=()), result(checked=values)) == (values, verdict)


def test_a_target_is_not_judged_by_those_who_are_left() -> None:
    """A contender that failed or was late could be the best one."""
    for name in ("checked", "pool"):
        failed = result(checked=[1.0], pool=[4.0], nbmake=[9.0])
        failed.faults[name] = "killed, because it was not done in 180 s"
        assert report.judge(TARGET, failed) == ([], "not measured")


# The report


def test_a_table_has_ratios_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """The median of the rounds, and their range."""
    found = result(pipeline=[1.0, 3.0, 2.0], pool=[4.0, 6.0, 8.0])
    found.faults = {"nbmake": "no disk"}
    report.show(found, Console(width=140))
    out = capsys.readouterr().out
    assert "2.00 (1.00–3.00)" in out
    assert "4.00 (2.00–4.00)" in out
    assert re.search("nbmake.* no disk ", out)


def test_files_hold_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bench.json` has each round, `bench.md` the table of the verdicts that was printed."""
    found = result(pipeline=[3.0], checked=[1.0], pool=[2.0])
    report.conclude([found], Console(width=140), tmp_path)
    printed = capsys.readouterr().out
    assert re.search(r"executed and checked, wall.* 0\.55 .* 0\.50 .* met ", printed)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"][0]["rounds"][0]["checked"]["wall_s"] == 1.0
    verdicts = [target["verdict"] for target in written["targets"]]
    assert verdicts == ["met", "missed", "not measured"]  # the three of this row
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == [f"{each} |" for each in verdicts]


# The contenders


def test_the_lower_bound_shows_what_a_kernel_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saves and closes figures and finds sources; the last line of a cell is its value."""
    cells = [
        {"cell_type": "markdown", "source": "prose", "metadata": {}},
        code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nassert plt.get_fignums()"),
        code("plt.get_fignums()", "left"),
        code("x = 1", "nothing"),
        code("for i in [x]:\n    y = i\ny, 'z'", "pair"),
        code("def f(): pass"),
        code("import inspect\ninspect.getsource(f)", "source"),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "out").mkdir()
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    contenders.plain("a.ipynb")
    cells = json.loads((tmp_path / "out" / "a.ipynb").read_text())["cells"]
    shown = [cell["outputs"][0]["data"]["text/plain"] for cell in cells if cell.get("outputs")]
    assert shown == ["[]", "(1, 'z')", "'def f(): pass'"]


def code(source: str, check: str = "") -> dict[str, object]:
    """A code cell, with a check if it is named."""
    metadata = {"check": check} if check else {}
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


def test_the_exit_status_is_1_if_a_value_differs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reports are written all the same."""
    write(expected=ORACLE)
    for name in ("tasks.py", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for value, status in (("1", 0), ("2", 1)):
        row = Row("r", "a row", [fake("a", "1"), fake("b", value)])
        monkeypatch.setitem(ROWS, "r", row)
        assert benchmark.run("r", "1", tmp_path) == status
    assert (tmp_path / "build" / "bench.json").exists()


@pytest.mark.kernel
def test_all_contenders_show_the_same(work: Path) -> None:
    """The pipeline, two competitors and both lower bounds, for real."""
    names = ("pipeline", "checked", "papermill", "pool", "nbmake", "scripts", "process")
    found = measure(work, *(CONTENDERS[name] for name in names))
    assert found.faults == {}
    for sample in found.rounds[0].values():
        assert sample.cpu_s > 0
        assert sample.peak_mb > 20 or sample.cpu_s < 1  # too short for a look
    assert not (ROOT / "build" / "runs" / "01_small").exists()


@pytest.mark.kernel
def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    """The cheapest row, once, in a project of its own."""
    for name in ("tasks.py", "pyproject.toml", "lessons", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "invoke", "bench", "--rows", "memory", "--rounds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "private memory of a run" in done.stdout
    (row,) = json.loads((tmp_path / "build" / "bench.json").read_text())["rows"]
    assert row["rounds"][0]["kernel"]["private_mb"] > 10
