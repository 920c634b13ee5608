"""The benchmark: what it counts, what it refuses, what it says. No test asserts how long it takes,
but that of a process that burns the processor for a second.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from ci.bench import bench, contenders, floors, rows, scores, stopwatch, workload
from ci.bench.bench import Judged, Measured, Sample
from ci.bench.contenders import NBMAKE, OURS, POOL, PROCESS, SCRIPTS, Contender
from ci.bench.rows import ROWS, TARGETS, Row, Target
from ci.bench.stopwatch import Figures
from ci.errors import CourseError, UsageError
from ci.lesson import oracle, reader
from ci.plan import planner
from tests.conftest import GRADIENT, ORACLE, Read, Write, eventually

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "bench" / "06_regression.py"

# Burns a second of the processor, in a session of its own, after its parent has ended.
DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
while time.process_time() < 1:
    pass
open("done", "w").close()
time.sleep(60)
"""


def sample(wall_s: float = 1.0, cpu_s: float = 1.0, **more: float) -> Sample:
    """An execution that took so long."""
    return Sample(wall_s, cpu_s, run_s=wall_s, peak_mb=100, foreign=0.0, **more)


def measured(row: Row = ROWS[0], **times: list[float]) -> Measured:
    """A row with these wall times of its contenders, by rounds."""
    found = Measured(row, row.contenders)
    found.samples = {name: [sample(t, t) for t in many] for name, many in times.items()}
    return found


# What the command line says


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_rounds_are_a_whole_number(text: str) -> None:
    """Anything else is one line, and the command line's fault."""
    with pytest.raises(UsageError, match=f"--rounds {re.escape(text)}: wants a whole number"):
        bench.rounds(text)
    assert bench.rounds("3") == 3


def test_rows_are_chosen_by_name_and_come_in_order() -> None:
    """All of them where none is named."""
    assert bench.rows("") == list(ROWS)
    assert [row.name for row in bench.rows("200, lessons")] == ["lessons", "200"]
    with pytest.raises(UsageError, match="no such row; did you mean 'unchanged'"):
        bench.rows("unchangd")
    with pytest.raises(UsageError, match="names no row"):
        bench.rows(",")


def test_the_command_refuses_in_one_line() -> None:
    """Status 2, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "bench", "--rounds", "few"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "--rounds few: wants a whole number from 1 on\n"


@pytest.mark.parametrize(("share", "load"), [(90.0, 0.0), (0.0, 9.0)])
def test_a_machine_that_is_not_quiet_is_called_so(
    monkeypatch: pytest.MonkeyPatch, share: float, load: float
) -> None:
    """Before anything is timed."""
    monkeypatch.setattr("psutil.cpu_percent", lambda _: share)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    said = f"others use {share:.0f}% of it, with a load of {load / 2:.1f} a core"
    assert said in bench.busy()
    monkeypatch.setattr("psutil.cpu_percent", lambda _: 1.0)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9.0, 9.0))
    assert bench.busy() == ""


# Rounds, ratios and targets


def test_the_order_rotates() -> None:
    """So that in as many rounds as there are contenders, each has each place once."""
    turns = [bench.rotated("abc", turn) for turn in range(4)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_a_ratio_is_of_one_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    found = measured(ours=[1.0, 2.0], pool=[4.0, 8.0])
    assert scores.ratios(found, "pool", "wall_s") == [0.25, 0.25]


TARGET = Target("lessons", "a target", "wall_s", "checked", 0.6, 0.45, ("pool", "nbmake"))


def test_a_target_is_against_the_best_peer_of_each_round() -> None:
    """Also where that is another one each time, or one of them is missing."""
    found = measured(checked=[1.0, 1.0], pool=[2.0, 4.0], nbmake=[4.0, 2.0])
    assert bench.values(TARGET, found) == [0.5, 0.5]
    assert bench.values(TARGET, measured(checked=[1.0], pool=[4.0])) == [0.25]
    assert bench.values(TARGET, measured(checked=[1.0])) == []
    assert bench.values(TARGET, measured(pool=[1.0])) == []


def test_a_target_may_be_a_difference_or_a_figure() -> None:
    """Seconds beyond another command, and memory."""
    found = measured(checked=[1.5, 1.0], pool=[1.0, 0.75])
    assert bench.values(replace(TARGET, how="difference"), found) == [0.5, 0.25]
    assert bench.values(replace(TARGET, how="value", against=()), found) == [1.5, 1.0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((), "not measured"),
        ((0.1, 0.45, 9.0), "aim reached"),
        ((0.5,), "met"),
        ((0.6, 0.6), "met"),
        ((0.1, 0.61, 0.7), "not met"),
    ],
)
def test_the_median_decides(values: tuple[float, ...], verdict: str) -> None:
    """One round that was disturbed does not."""
    assert Judged(TARGET, values).verdict == verdict


def test_a_verdict_says_whether_others_were_at_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They trouble one side of a ratio more than the other; who is not in it does not count."""
    found = measured(checked=[1.0], pool=[4.0], ours=[1.0])
    found.samples["ours"] = [replace(found.samples["ours"][0], foreign=0.9)]
    assert [judged.disturbed for judged in bench.judge([found])] == [False]
    found.samples["pool"] = [replace(found.samples["pool"][0], foreign=0.21)]
    judged = bench.judge([found])
    scores.conclude(judged, (0.0, 0.0, 0.0))
    assert "aim reached, but disturbed" in capsys.readouterr().out


def test_each_target_is_of_contenders_that_its_row_has() -> None:
    """A name that was misspelt would never be measured."""
    for target in TARGETS:
        (row,) = (row for row in ROWS if row.name == target.row)
        names = {contender.name for contender in row.contenders}
        assert {target.ours, *target.against} <= names
        assert target.aim <= target.most


def test_whoever_a_row_leaves_out_has_a_reason() -> None:
    """Each contender that executes takes part in each row that executes, or is named there."""
    wanted = {c.name for c in (contenders.PAPERMILL, POOL, contenders.NBCONVERT, NBMAKE, SCRIPTS)}
    for row in ROWS[:4]:
        there = {contender.name for contender in row.contenders}
        assert wanted <= there | {*row.left_out}
        assert not there & {*row.left_out}
        assert all(why for _, why in row.left_out.values())


# What is executed


def test_peers_get_the_lesson_with_its_parameters_and_without_errors(read: Read) -> None:
    """Papermill ends at a cell that raises; it is caught there, and only its own type."""
    text = '# %% raises="ValueError"\nint("a")\n' + GRADIENT
    run = planner.runs([read(text)], ["size=3"], ())[0]
    made = workload.notebook(run.lesson.notebook, {"size": 3})
    nbformat.validate(made)
    sources = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert sources[:2] == ["size: int = 4  # length of the vector", "size = 3"]
    assert sources[3] == 'try:\n    int("a")\nexcept ValueError as error:\n    print(error)'
    assert 'int("a")' in [cell.source for cell in run.lesson.notebook.cells]


def test_all_have_the_same_threads_or_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's setting is nobody's."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    work = workload.Workload(tmp_path, (), ())
    alike, own = workload.environment(work), workload.environment(work, defaults=True)
    assert alike["OMP_NUM_THREADS"] == alike["MKL_NUM_THREADS"] == "4"
    assert alike["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"} & own.keys()


def test_a_part_of_a_sweep_is_its_beginning(tmp_path: Path) -> None:
    """With the same names for the same runs."""
    work = workload.prepare([SMALL], ROOT, tmp_path / "work", rows.seeds(5))
    part = work.first(2)
    assert part.settings == ("seed=0,1",)
    assert part.names == work.names[:2] == ["06_regression-000", "06_regression-001"]
    assert part.chosen["06_regression-001.ipynb"] == {"seed": 1}
    assert contenders.OURS.commands(part)[0][-2:] == ["-p", "seed=0,1"]


def test_a_workload_has_the_lessons_that_are_asked_for(write: Write, tmp_path: Path) -> None:
    """And what they import; the peers' folder has no expected value in it."""
    wanted, other = write(expected=ORACLE), write(name="02_other", expected=ORACLE)
    (wanted.parent / "parallel").mkdir()
    (wanted.parent / "parallel" / "ring.py").write_text("a = 1\n")
    work = workload.prepare([wanted], ROOT, tmp_path / "work")
    assert other.exists()
    lessons = work.project / "lessons"
    assert sorted(path.name for path in lessons.glob("*.py")) == ["01_small.py"]
    assert (lessons / "expected" / "01_small.py").exists()
    assert (work.notebooks / "parallel" / "ring.py").exists()
    assert not (work.notebooks / "expected").exists()
    assert [path.name for path in work.notebooks.glob("*.ipynb")] == ["01_small-000.ipynb"]


def test_the_small_lesson_is_a_lesson() -> None:
    """Each of its checks has an oracle, and each parameter changes what they must show."""
    lesson = reader.read(SMALL)
    found = oracle.load(lesson)
    assert {*found} == {check.name for check in lesson.checks}
    assert [*lesson.parameters] == ["seed", "size", "steps", "lr"]


# What checks show


def test_what_differs_is_named() -> None:
    """The first cell that differs, with both values; line breaks don't count."""
    ours = {"a x": "tensor([1.,\n        2.])", "a y": "3"}
    assert bench.difference(ours, {"a x": "tensor([1., 2.])", "a y": "3"}) == ""
    assert bench.difference(ours, {**ours, "a y": "4"}) == "differs at a y: shows 4, ours 3"
    assert bench.difference(ours, {"a x": "tensor([1., 2.])"}) == (
        "differs at a y: shows nothing, ours 3"
    )
    assert bench.difference(ours, {**ours, "a z": "5"}) == "differs at a z: shows 5, ours nothing"


def fake(name: str, value: str, **more: object) -> Contender:
    """A contender that shows this value at once."""
    contender = Contender(
        name, "peer", name, lambda _: [["true"]], lambda *_: {"01_small-000 gradient": value}
    )
    return replace(contender, **more)


@pytest.fixture
def work(write: Write, tmp_path: Path) -> workload.Workload:
    """A small lesson, prepared."""
    return workload.prepare([write(expected=ORACLE)], ROOT, tmp_path / "work")


def test_who_shows_something_else_has_no_time(work: workload.Workload) -> None:
    """It is out, with the name of the cell, and the bench ends with status 1."""
    row = Row("r", "a row", (fake("ours", "1"), fake("same", "1"), fake("other", "2")))
    said: list[str] = []
    found = bench.measure(row, work, number=2, whole=False, say=said.append)
    assert found.faults == {
        "other": "differs at 01_small-000 gradient: shows 2, ours 1",
    }
    assert {name: len(many) for name, many in found.samples.items()} == {"ours": 2, "same": 2}
    assert said == [
        *("r: round 1 of 2: ours", "r: round 1 of 2: same", "r: round 1 of 2: other"),
        *("r: round 2 of 2: same", "r: round 2 of 2: ours"),
    ]
    assert bench.status([found]) == 1
    assert not list(work.folder.glob("place*"))


def test_who_is_missing_is_named(work: workload.Workload) -> None:
    """And so is who was left out, until all are asked for."""
    missing = fake("absent", "1", needs=("nosuchmodule", "sh", "json"))
    row = Row(
        "r", "a row", (fake("ours", "1"), missing), left_out={"slow": (fake("slow", "1"), "hours")}
    )
    found = bench.measure(row, work, number=1, whole=False, say=lambda _: None)
    assert found.absent == {"slow": "left out: hours", "absent": "missing here: nosuchmodule"}
    assert bench.status([found]) == 0
    found = bench.measure(row, work, number=1, whole=True, say=lambda _: None)
    assert [*found.samples] == ["ours", "slow"]


def test_a_command_that_fails_says_why(work: workload.Workload) -> None:
    """A peer's is in the table; ours ends the bench, there is nothing to compare with."""
    broken = fake("broken", "1", commands=lambda _: [["sh", "-c", "echo no disk; exit 3"]])
    row = Row("r", "a row", (fake("ours", "1"), broken))
    found = bench.measure(row, work, number=1, whole=False, say=lambda _: None)
    assert found.faults == {"broken": "r: broken: ended with status 3: no disk"}
    with pytest.raises(CourseError, match="r: broken: ended with status 3: no disk"):
        bench.measure(Row("r", "", (broken,)), work, number=1, whole=False, say=lambda _: None)


def test_who_is_late_is_ended_and_shown_as_later(work: workload.Workload) -> None:
    """It is not dropped: the time is at least the deadline's."""
    late = fake("late", "1", commands=lambda _: [["sleep", "60"]])
    row = Row("r", "a row", (fake("ours", "1"), late), deadline_s=0.5)
    found = bench.measure(row, work, number=1, whole=False, say=lambda _: None)
    assert found.samples["late"][0].over
    assert scores.wall(found.samples["late"]) == "> 1"
    assert found.faults == {}


# What a process tree takes


def watched(folder: Path, code: str, deadline_s: float = 60.0) -> Figures:
    """What Python takes for this program."""
    return stopwatch.measure(
        [[sys.executable, "-c", code]],
        folder,
        os.environ,
        log=folder / "log.txt",
        deadline_s=deadline_s,
    )


@pytest.mark.slow
def test_a_daemon_counts_and_is_ended(tmp_path: Path) -> None:
    """It left its parent and its session; its processor time is the tree's all the same."""
    waits = "import os, time\nwhile not os.path.exists('done'): time.sleep(0.1)"
    starts = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {DAEMON!r}])\n"
    found = watched(tmp_path, starts + waits)
    assert found.status == 0
    assert 1.0 <= found.cpu_s < 5.0
    assert eventually(lambda: not running("time.process_time() < 1"))


@pytest.mark.slow
def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    """Two processes that hold 100 MB each, of which one is the other's child."""
    holds = "import os, time; os.fork(); b = b'x' * 10**8; time.sleep(2)"
    assert 200 < watched(tmp_path, holds).peak_mb < 300


@pytest.mark.slow
def test_a_deadline_ends_the_tree(tmp_path: Path) -> None:
    """Those that would not end too."""
    stubborn = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork(); time.sleep(77)"
    )
    began = time.monotonic()
    found = watched(tmp_path, stubborn, deadline_s=1.0)
    assert found.over
    assert time.monotonic() - began < 20
    assert not running("time.sleep(77)")


def test_what_a_command_says_is_in_the_log(tmp_path: Path) -> None:
    """And its exit status in the figures; the next command does not begin."""
    log = tmp_path / "log.txt"
    commands = [["sh", "-c", "echo out; echo err >&2; exit 4"], ["sh", "-c", "echo never"]]
    found = stopwatch.measure(commands, tmp_path, os.environ, log=log, deadline_s=10)
    assert found.status == 4
    assert log.read_text() == "out\nerr\n"


def running(word: str) -> list[str]:
    """Command lines of processes that have this word in them, but our own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text(errors="replace")
        except OSError:
            continue
        if word in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


# What is said and left


def test_a_table_has_the_ratios_and_whoever_is_not_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The load before, each contender with its median and range, and why others are not there."""
    found = measured(ours=[1.0, 3.0, 2.0], pool=[4.0, 6.0, 8.0])
    found.absent = {"nbmake": "missing here: nbmake"}
    scores.show([found], (0.5, 0.25, 0.125))
    out = capsys.readouterr().out
    assert "load before: 0.50 0.25 0.12" in out
    assert "2.00 (1.00–3.00)" in out
    assert "0.25 (0.25–0.50)" in out
    assert "nbmake: missing here: nbmake" in out


def test_targets_are_shown_met_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what was measured."""
    judged = [Judged(TARGET, (0.5, 0.5)), Judged(replace(TARGET, title="two"), ())]
    scores.conclude(judged, (1.0, 1.0, 1.0))
    out = capsys.readouterr().out
    assert re.search(r"a target +0\.6 +0\.45 +0\.50 +met", out)
    assert re.search(r"two +0\.6 +0\.45 +- +not measured", out)


def test_the_files_hold_all_that_was_measured(tmp_path: Path) -> None:
    """`bench.json` with each round, and a plot that is the same for the same figures."""
    found = measured(ours=[1.0, 3.0], pool=[4.0, 6.0])
    data = scores.record([found], bench.judge([found]), [(0, 0, 0), (1, 1, 1)])
    paths = scores.write(data, [found], tmp_path)
    assert [path.name for path in paths] == ["bench.json", "bench.svg"]
    read = json.loads(paths[0].read_text())
    (row,) = read["rows"]
    assert [s["wall_s"] for s in row["contenders"][0]["rounds"]] == [1.0, 3.0]
    assert {target["verdict"] for target in read["targets"]} == {"not measured"}
    before = paths[1].read_bytes()
    scores.draw([found], paths[1])
    assert paths[1].read_bytes() == before
    assert b"<svg" in before and scores.INK.encode() in before


def test_a_row_that_is_not_compared_is_not_drawn(tmp_path: Path) -> None:
    """There is no plot of nothing."""
    found = measured(ROWS[-2], kernel=[1.0])
    assert [path.name for path in scores.write({}, [found], tmp_path)] == ["bench.json"]


# All of it


@pytest.mark.slow
def test_all_show_the_same_of_a_lesson(work: workload.Workload, tmp_path: Path) -> None:
    """Our pipeline, two peers and both floors, for real; each has taken time and memory."""
    row = Row("r", "a row", (OURS, contenders.CHECKED, POOL, NBMAKE, SCRIPTS, PROCESS))
    found = bench.measure(row, work, number=1, whole=False, say=lambda _: None)
    assert (found.faults, found.absent) == ({}, {})
    assert [*found.samples] == ["ours", "checked", "pool", "nbmake", "scripts", "process"]
    for (one,) in found.samples.values():
        assert one.cpu_s > 0
        assert one.peak_mb > 20 or one.wall_s < 1  # too short to be looked at
    assert not (ROOT / "build" / "runs" / "01_small").exists()


@pytest.mark.slow
def test_a_figure_an_error_and_a_class_are_the_same_in_a_floor(tmp_path: Path) -> None:
    """Floors are as good as a kernel in what they show, and set figures as SVG."""
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nassert plt.get_fignums()"
    cells: list[Mapping[str, object]] = [
        {"cell_type": "markdown", "source": "prose", "metadata": {}},
        {"cell_type": "code", "source": drawn, "metadata": {}},
        {"cell_type": "code", "source": "plt.get_fignums()", "metadata": {"check": "left"}},
        {
            "cell_type": "code",
            "source": "int, [1, {'a': float}], (2.0,)",
            "metadata": {"check": "pair"},
        },
        {"cell_type": "code", "source": "type(plt.figure())", "metadata": {"check": "kind"}},
        {"cell_type": "code", "source": "x = 1", "metadata": {"check": "nothing"}},
    ]
    main = sys.modules["__main__"]
    try:
        shown = dict(floors.execute({"cells": cells}))
    finally:
        sys.modules["__main__"] = main
    assert shown["left"] == "[]"
    assert shown["pair"] == "(int, [1, {'a': float}], (2.0,))"
    assert shown["kind"] == "matplotlib.figure.Figure"
    assert "nothing" not in shown


@pytest.mark.slow
def test_the_command_measures_and_says_so(tmp_path: Path) -> None:
    """The cheapest row, once, in a project of its own: its JSON, its table, status 0."""
    for name in ("tasks.py", "pyproject.toml", "lessons", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "bench", "--rows", "memory", "--rounds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "private memory of a warm kernel" in done.stdout
    assert "load after" in done.stdout
    (row,) = json.loads((tmp_path / "build" / "bench.json").read_text())["rows"]
    assert row["contenders"][0]["rounds"][0]["private_mb"] > 10
