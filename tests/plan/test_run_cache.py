"""The run cache: nothing is executed twice, and no outdated result counts as verified."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.judge.outcome import unchanged_outcome
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from ci.plan import attempts, planner, run_cache
from ci.plan.attempts import NOTEBOOK
from ci.plan.planner import Run
from ci.plan.run_cache import RunCache, Work
from ci.run.run import keep
from ci.worker.executed import save
from tests.conftest import GRADIENT, Read
from tests.judge.test_verdicts import executed
from tests.plan.conftest import WRONG, default_run, fake_execution, is_published, work


def test_a_verified_run_is_unchanged(lesson: Lesson, tmp_path: Path) -> None:
    """Its outcome has the date and the results of the recorded execution."""
    verified = fake_execution(default_run(lesson), tmp_path)
    found = work(default_run(lesson), build=tmp_path)
    assert (found.judge, found.execute, found.lessons) == ([], [], [])
    previous = found.unchanged[0]
    outcome = unchanged_outcome(previous.run, previous.attempt, previous.facts)
    assert (outcome.status, outcome.green) == ("unchanged", True)
    assert outcome.verdict == "unchanged since 2026-01-01 12:00 UTC"
    assert (outcome.results, outcome.attempt) == (verified.results, verified.attempt)
    assert (outcome.environment, outcome.seconds) == ({"torch": "2.13.0"}, 1.5)


def test_fresh_executes_all_runs(lesson: Lesson, tmp_path: Path) -> None:
    """Even those that are unchanged."""
    fake_execution(default_run(lesson), tmp_path)
    run = default_run(lesson)
    assert work(run, build=tmp_path, fresh=True) == Work([], [], [run])


@pytest.mark.parametrize("name", ["executed.ipynb", "checks.json", "log.txt"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_modified_attempt_is_not_used(
    lesson: Lesson, tmp_path: Path, name: str, how: str
) -> None:
    """A byte of one of its files changed, or a file is missing."""
    attempt = fake_execution(default_run(lesson), tmp_path).attempt
    assert attempt
    if how == "missing":
        (attempt / name).unlink()
    else:
        data = bytearray((attempt / name).read_bytes() or b" ")
        data[len(data) // 2] ^= 1
        (attempt / name).write_bytes(data)
    assert len(work(default_run(lesson), build=tmp_path).execute) == 1


def test_a_damaged_record_is_ignored(lesson: Lesson, tmp_path: Path) -> None:
    """It is cut off, or has other content."""
    fake_execution(default_run(lesson), tmp_path)
    (record,) = (tmp_path / "records" / "01_small").glob("*/*.json")
    for text in (record.read_text()[:-10], "[]", "{}", ""):
        record.write_text(text)
        assert len(work(default_run(lesson), build=tmp_path).execute) == 1


def test_the_previous_attempt_replaces_a_damaged_one(lesson: Lesson, tmp_path: Path) -> None:
    """Both have been verified."""
    first, second = (fake_execution(default_run(lesson), tmp_path) for _ in range(2))
    assert work(default_run(lesson), build=tmp_path).unchanged[0].attempt == second.attempt
    assert second.attempt
    (second.attempt / "log.txt").unlink()
    assert work(default_run(lesson), build=tmp_path).unchanged[0].attempt == first.attempt


def test_a_killed_run_is_executed_again(lesson: Lesson, tmp_path: Path) -> None:
    """Its attempt is incomplete and has no record."""
    run = default_run(lesson)
    attempt = attempts.begin(run, tmp_path / "runs")
    save(executed(lesson, gradient=4.0 * np.arange(4)), attempt / NOTEBOOK)
    assert work(run, build=tmp_path).execute == [run]


def test_an_attempt_without_a_record_is_not_used(lesson: Lesson, tmp_path: Path) -> None:
    """A lesson can write into its attempt, so the attempt itself proves nothing."""
    fake_execution(default_run(lesson), tmp_path)
    shutil.rmtree(tmp_path / "records")
    assert len(work(default_run(lesson), build=tmp_path).execute) == 1


def test_a_run_that_differs_is_executed_again(read: Read, tmp_path: Path) -> None:
    """Its next execution could give another result."""
    run = default_run(read(GRADIENT, expected=WRONG))
    assert fake_execution(run, tmp_path).status == "differs"
    assert work(run, build=tmp_path).execute == [run]


@pytest.mark.parametrize("status", ["failed", "timed out"])
def test_the_last_execution_decides(lesson: Lesson, tmp_path: Path, status: str) -> None:
    """A lesson that was verified and later failed must be executed again."""
    run = default_run(lesson)
    fake_execution(run, tmp_path)
    fake_execution(run, tmp_path, status=status)
    assert work(run, build=tmp_path).execute == [run]


def test_an_unchecked_run_is_executed_again(read: Read, tmp_path: Path) -> None:
    """There is no verified result to rely on."""
    run = default_run(read("# %%\n1 + 1;\n"))
    assert fake_execution(run, tmp_path).status == "unchecked"
    assert work(run, build=tmp_path).execute == [run]


def test_missing_handouts_need_the_recorded_notebook(lesson: Lesson, tmp_path: Path) -> None:
    """The notebook is judged again, and the run stays unchanged."""
    fake_execution(default_run(lesson), tmp_path)
    run_cache = RunCache(tmp_path, LocalExecutor().facts)
    found = run_cache.work([default_run(lesson)], lambda lesson, key: False)
    assert (found.unchanged, found.execute) == ([], [])
    outcome = keep(verdicts.judge_again(found.judge[0], oracle.load(lesson)), run_cache)
    assert (outcome.status, outcome.notebook is not None) == ("unchanged", True)
    assert work(default_run(lesson), build=tmp_path).unchanged[0].key == outcome.key


def test_the_runs_of_a_sweep_are_judged_again(lesson: Lesson, tmp_path: Path) -> None:
    """They are unchanged, but comparing them needs their notebooks."""
    runs = planner.runs([lesson], ["size=3,4"], [])
    for run in runs:
        fake_execution(run, tmp_path)
    found = work(*runs, build=tmp_path)
    oracles = oracle.load(lesson)
    again = [verdicts.judge_again(previous, oracles) for previous in found.judge]
    assert [outcome.status for outcome in again] == ["unchanged"] * 2


def test_the_last_three_attempts_of_a_run_are_kept(lesson: Lesson, tmp_path: Path) -> None:
    """The attempts of other runs, for example of a sweep, do not count."""
    first = fake_execution(default_run(lesson), tmp_path)
    for run in planner.runs([lesson], ["size=3"], []) * 4:
        last = fake_execution(run, tmp_path).attempt
    assert first.attempt
    assert first.attempt.exists()
    assert last
    assert len(list(last.parent.iterdir())) == attempts.KEPT
    assert (
        len(list((tmp_path / "records" / "01_small" / last.parent.name).iterdir())) == attempts.KEPT
    )


def test_clean_keeps_the_attempts_of_the_course(lesson: Lesson, tmp_path: Path) -> None:
    """It keeps the last attempts with default parameters, and removes sweeps and drafts."""
    fake_execution(default_run(lesson), tmp_path)
    swept = fake_execution(planner.runs([lesson], ["size=3"], [])[0], tmp_path).attempt
    (tmp_path / "drafts").mkdir()
    assert swept
    run_cache.clean(tmp_path)
    assert (swept.exists(), (tmp_path / "drafts").exists()) == (False, False)
    assert work(default_run(lesson), build=tmp_path).execute == []


def test_the_expected_duration_is_that_of_the_last_execution(
    lesson: Lesson, tmp_path: Path
) -> None:
    """Or of another run of the lesson; it is unknown for a lesson that never ran."""
    run_cache, run = RunCache(tmp_path, LocalExecutor().facts), default_run(lesson)
    assert run_cache.seconds(run) is None
    fake_execution(run, tmp_path)
    assert run_cache.seconds(run) == 1.5
    assert run_cache.seconds(replace(run, parameters={"size": 9})) == 1.5


def test_the_last_execution_decides_when_the_clock_was_set_back(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It differs, so that an earlier result with a later date is not `unchanged`."""
    begin = attempts.begin

    def begin_in_the_future(run: Run, folder: Path) -> Path:
        attempt = begin(run, folder)
        return attempt.rename(attempt.with_name(".29990101T000000.000000-1"))

    with monkeypatch.context() as patched:
        patched.setattr(attempts, "begin", begin_in_the_future)
        fake_execution(default_run(lesson), tmp_path)
    last = fake_execution(default_run(lesson), tmp_path)
    assert work(default_run(lesson), build=tmp_path).unchanged[0].attempt == last.attempt
    (lesson.path.parent / "expected" / "01_small.py").write_text(WRONG)
    differs = fake_execution(default_run(lesson), tmp_path)
    assert differs.status == "differs"
    assert work(default_run(lesson), build=tmp_path).execute


def test_a_run_says_why_it_is_executed(lesson: Lesson, tmp_path: Path) -> None:
    """Never before, never so, after a change, after a failure, or since its files are gone."""

    def reason(run: Run) -> str:
        cache = RunCache(tmp_path, LocalExecutor().facts)
        cache.work([run], is_published)
        return cache.reason(run)

    run, date = default_run(lesson), "2026-01-01 12:00 UTC"
    assert reason(run) == "never executed"
    attempt = fake_execution(run, tmp_path).attempt
    other = replace(run, threads=7)
    assert reason(other) == "never executed with these parameters, threads and GPUs"
    (attempt / NOTEBOOK).unlink()
    assert reason(run) == f"the files of its execution of {date} are gone or were modified"
    (lesson.path.parent / "data.txt").write_text("1")
    assert reason(run) == f"changed since {date}: lessons/data.txt"
    fake_execution(run, tmp_path, status="failed")
    assert reason(run) == f"failed on {date}"
