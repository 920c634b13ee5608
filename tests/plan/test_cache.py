"""Nothing is executed twice, and nothing stands that was not verified as it is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ci.execute.events import End, Execution
from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.judge.outcome import Outcome
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.plan import attempts, cache, lesson_cache, planner
from ci.plan.attempts import LOG, NOTEBOOK
from ci.plan.cache import RunCache, Work
from ci.plan.planner import Run
from ci.run import keep
from ci.worker.notebook import save
from tests.conftest import GRADIENT, ORACLE, Read
from tests.judge.test_verdicts import executed

WRONG = ORACLE.replace("4 * np", "6 * np")


def published(lesson: str, key: str) -> bool:
    """Its handouts are on the course page."""
    return True


def default(lesson: Lesson) -> Run:
    """The lesson as its author wrote it."""
    return planner.Run(lesson, lesson.defaults)


def leave(
    run: Run, build: Path, *, status: str = "completed", meanwhile: Callable[[], object] = id
) -> Outcome:
    """What an execution of `run` leaves whose cells showed 4 i."""
    run_cache = RunCache(build, LocalExecutor().facts)
    run_cache.work([run], published, fresh=True)
    attempt = attempts.begin(run, build / "runs")
    notebook = executed(run.lesson, gradient=4.0 * np.arange(run.parameters["size"]))
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = number + 1
    save(notebook, attempt / NOTEBOOK)
    (attempt / LOG).write_text("")
    if meanwhile is not id:
        meanwhile()
    execution = Execution(
        run,
        attempt,
        End(status),
        notebook=attempt / NOTEBOOK,
        seconds=1.5,
        date="2026-01-01 12:00 UTC",
        environment={"torch": "2.13.0"},
    )
    return keep(verdicts.judge(execution, oracle.load(run.lesson)), run_cache)


def work(*runs: Run, build: Path, fresh: bool = False) -> Work:
    """What the next plan has to do."""
    return RunCache(build, LocalExecutor().facts).work(runs, published, fresh=fresh)


def judge(run: Run, build: Path) -> Outcome:
    """The outcome of the next plan, which judges a kept notebook and records the outcome."""
    run_cache = RunCache(build, LocalExecutor().facts)
    (previous,) = run_cache.work([run], published).judge
    return keep(verdicts.judge_again(previous, oracle.load(run.lesson)), run_cache)


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with an oracle."""
    return read(GRADIENT, expected=ORACLE)


def test_a_verified_run_is_unchanged(lesson: Lesson, tmp_path: Path) -> None:
    """Nothing is left to do, and it says since when it stands, with the results of then."""
    verified = leave(default(lesson), tmp_path)
    found = work(default(lesson), build=tmp_path)
    assert (found.judge, found.execute, found.lessons) == ([], [], [])
    outcome = verdicts.unchanged(found.unchanged[0])
    assert (outcome.status, outcome.green) == ("unchanged", True)
    assert outcome.verdict == "unchanged since 2026-01-01 12:00 UTC"
    assert (outcome.results, outcome.attempt) == (verified.results, verified.attempt)
    assert (outcome.environment, outcome.seconds) == ({"torch": "2.13.0"}, 1.5)


def test_fresh_executes_all(lesson: Lesson, tmp_path: Path) -> None:
    """Also what is unchanged."""
    leave(default(lesson), tmp_path)
    run = default(lesson)
    assert work(run, build=tmp_path, fresh=True) == Work([], [], [run])


@pytest.mark.parametrize("name", ["executed.ipynb", "checks.json", "log.txt"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_an_attempt_that_is_not_what_it_was_does_not_stand(
    lesson: Lesson, tmp_path: Path, name: str, how: str
) -> None:
    """A byte of any of its files, or one that is gone."""
    attempt = leave(default(lesson), tmp_path).attempt
    assert attempt
    if how == "missing":
        (attempt / name).unlink()
    else:
        data = bytearray((attempt / name).read_bytes() or b" ")
        data[len(data) // 2] ^= 1
        (attempt / name).write_bytes(data)
    assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_a_damaged_record_is_none(lesson: Lesson, tmp_path: Path) -> None:
    """Cut off, or something else."""
    leave(default(lesson), tmp_path)
    (record,) = (tmp_path / "records" / "01_small").glob("*/*.json")
    for text in (record.read_text()[:-10], "[]", "{}", ""):
        record.write_text(text)
        assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_a_damaged_attempt_leaves_the_one_before(lesson: Lesson, tmp_path: Path) -> None:
    """What was verified twice stands on either."""
    first, second = (leave(default(lesson), tmp_path) for _ in range(2))
    assert work(default(lesson), build=tmp_path).unchanged[0].attempt == second.attempt
    assert second.attempt
    (second.attempt / "log.txt").unlink()
    assert work(default(lesson), build=tmp_path).unchanged[0].attempt == first.attempt


def test_a_run_that_was_killed_is_run_again(lesson: Lesson, tmp_path: Path) -> None:
    """Its attempt never got its name, and nothing recorded it."""
    run = default(lesson)
    attempt = attempts.begin(run, tmp_path / "runs")
    save(executed(lesson, gradient=4.0 * np.arange(4)), attempt / NOTEBOOK)
    assert work(run, build=tmp_path).execute == [run]


def test_an_attempt_that_only_says_that_it_was_verified_does_not_stand(
    lesson: Lesson, tmp_path: Path
) -> None:
    """A lesson may write into its attempts: what it leaves there is no record."""
    leave(default(lesson), tmp_path)
    shutil.rmtree(tmp_path / "records")
    assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_a_changed_rank_program_is_executed(lesson: Lesson, tmp_path: Path) -> None:
    """It is part of the run, as is the script."""
    (lesson.path.parent / "parallel").mkdir()
    (lesson.path.parent / "parallel" / "ring.py").write_text("a = 1\n")
    leave(default(lesson), tmp_path)
    assert work(default(lesson), build=tmp_path).execute == []
    (lesson.path.parent / "parallel" / "ring.py").write_text("a = 2\n")
    assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_other_threads_are_executed(lesson: Lesson, tmp_path: Path) -> None:
    """They can change sums; each is kept."""
    two = replace(default(lesson), threads=2)
    leave(default(lesson), tmp_path)
    assert work(two, build=tmp_path).execute == [two]
    leave(two, tmp_path)
    assert work(two, build=tmp_path).execute == []
    assert work(default(lesson), build=tmp_path).execute == []


def test_another_torch_is_executed(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that was installed, whatever it is, may be what a lesson runs with."""
    leave(default(lesson), tmp_path)
    (tmp_path / "site" / "torch-9.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "torch-9.dist-info" / "RECORD").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_a_changed_oracle_judges_the_kept_notebook(
    lesson: Lesson, read: Read, tmp_path: Path
) -> None:
    """Wrong, it differs; right again, it is verified; and no kernel starts."""
    leave(default(lesson), tmp_path)
    run = default(read(GRADIENT, expected=WRONG))
    differs = judge(run, tmp_path)
    assert (differs.status, differs.green) == ("differs", False)
    run = default(read(GRADIENT, expected=ORACLE + "# more\n"))
    verified = judge(run, tmp_path)
    assert verified.status == "verified"
    assert verified.reason == "executed 2026-01-01 12:00 UTC, judged again"
    assert len(list((tmp_path / "runs").glob("*/*/*"))) == 1
    assert work(run, build=tmp_path).unchanged[0].facts["date"] == "2026-01-01 12:00 UTC"


def test_what_differs_is_executed_again(read: Read, tmp_path: Path) -> None:
    """Nobody has looked at it yet, and it may come out otherwise."""
    run = default(read(GRADIENT, expected=WRONG))
    assert leave(run, tmp_path).status == "differs"
    assert work(run, build=tmp_path).execute == [run]


@pytest.mark.parametrize("status", ["failed", "timed out"])
def test_the_last_execution_decides(lesson: Lesson, tmp_path: Path, status: str) -> None:
    """A lesson that was verified and then failed, unchanged, is not green until it runs again."""
    run = default(lesson)
    leave(run, tmp_path)
    leave(run, tmp_path, status=status)
    assert work(run, build=tmp_path).execute == [run]


def test_a_lesson_without_checks_never_stands(read: Read, tmp_path: Path) -> None:
    """There is nothing that was verified."""
    run = default(read("# %%\n1 + 1;\n"))
    assert leave(run, tmp_path).status == "unchecked"
    assert work(run, build=tmp_path).execute == [run]


@pytest.mark.parametrize("name", ["01_small.py", "data.csv", "expected/01_small.py"])
def test_what_was_changed_while_it_ran_is_not_recorded(
    lesson: Lesson, tmp_path: Path, name: str
) -> None:
    """Nobody knows which of the two was executed, also when the change is taken back."""
    path = lesson.path.parent / name
    (lesson.path.parent / "data.csv").write_text("1")
    before = path.read_text()
    outcome = leave(default(lesson), tmp_path, meanwhile=lambda: path.write_text(before + "\n"))
    assert outcome.key == ""
    path.write_text(before)
    assert len(work(default(lesson), build=tmp_path).execute) == 1


def test_handouts_that_are_not_there_need_the_kept_notebook(lesson: Lesson, tmp_path: Path) -> None:
    """It is judged once more on the way, and stays unchanged."""
    leave(default(lesson), tmp_path)
    run_cache = RunCache(tmp_path, LocalExecutor().facts)
    found = run_cache.work([default(lesson)], lambda lesson, key: False)
    assert (found.unchanged, found.execute) == ([], [])
    outcome = keep(verdicts.judge_again(found.judge[0], oracle.load(lesson)), run_cache)
    assert (outcome.status, outcome.notebook is not None) == ("unchanged", True)
    assert work(default(lesson), build=tmp_path).unchanged[0].key == outcome.key


def test_runs_of_a_sweep_are_judged_to_be_compared(lesson: Lesson, tmp_path: Path) -> None:
    """Unchanged, and with their notebooks."""
    runs = planner.runs([lesson], ["size=3,4"], [])
    for run in runs:
        leave(run, tmp_path)
    found = work(*runs, build=tmp_path)
    oracles = oracle.load(lesson)
    again = [verdicts.judge_again(previous, oracles) for previous in found.judge]
    assert [outcome.status for outcome in again] == ["unchanged"] * 2


def test_the_last_three_attempts_of_a_run_are_kept(lesson: Lesson, tmp_path: Path) -> None:
    """Those of another run, as of a sweep, do not count against them."""
    first = leave(default(lesson), tmp_path)
    for run in planner.runs([lesson], ["size=3"], []) * 4:
        last = leave(run, tmp_path).attempt
    assert first.attempt
    assert first.attempt.exists()
    assert last
    assert len(list(last.parent.iterdir())) == attempts.KEPT
    assert (
        len(list((tmp_path / "records" / "01_small" / last.parent.name).iterdir())) == attempts.KEPT
    )


def test_clean_keeps_what_the_course_stands_on(lesson: Lesson, tmp_path: Path) -> None:
    """The last attempts with default parameters; no sweep, and no drafts."""
    leave(default(lesson), tmp_path)
    swept = leave(planner.runs([lesson], ["size=3"], [])[0], tmp_path).attempt
    (tmp_path / "drafts").mkdir()
    assert swept
    cache.clean(tmp_path)
    assert (swept.exists(), (tmp_path / "drafts").exists()) == (False, False)
    assert work(default(lesson), build=tmp_path).execute == []


def test_a_lesson_is_the_same_from_memory(lesson: Lesson, tmp_path: Path) -> None:
    """What was parsed before is not parsed again, and reads the same."""
    parsed, remembered = (lesson_cache.read(lesson.path, tmp_path) for _ in range(2))
    assert parsed == remembered == reader.read(lesson.path)


def test_a_memory_that_is_damaged_or_of_another_text_is_not_used(
    lesson: Lesson, tmp_path: Path
) -> None:
    """The script is what counts."""
    lesson_cache.read(lesson.path, tmp_path)
    (memory,) = (tmp_path / "records" / "lessons").iterdir()
    known = json.loads(memory.read_text())
    known["notebook"]["cells"][-1]["source"] = "5.0 * np.arange(size)"
    memory.write_text(json.dumps(known))
    assert "4.0" in lesson_cache.read(lesson.path, tmp_path).notebook.cells[-1].source
    lesson.path.write_text(lesson.path.read_text().replace("4.0", "6.0"))
    assert "6.0" in lesson_cache.read(lesson.path, tmp_path).notebook.cells[-1].source


def test_a_run_is_expected_to_last_as_long_as_the_last_time(lesson: Lesson, tmp_path: Path) -> None:
    """Or as long as another run of its lesson; a lesson that never ran is not known."""
    run_cache, run = RunCache(tmp_path, LocalExecutor().facts), default(lesson)
    assert run_cache.seconds(run) is None
    leave(run, tmp_path)
    assert run_cache.seconds(run) == 1.5
    assert run_cache.seconds(replace(run, parameters={"size": 9})) == 1.5
