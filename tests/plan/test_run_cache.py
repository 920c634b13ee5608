"""The run cache: nothing is executed twice, and no outdated result counts as verified."""

import base64
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ci.execute.events import End, Execution
from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.judge.outcome import Outcome, unchanged_outcome
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson
from ci.plan import attempts, known_lessons, planner, run_cache
from ci.plan.attempts import LOG, NOTEBOOK
from ci.plan.planner import Run
from ci.plan.run_cache import RunCache, Work
from ci.run.run import keep
from ci.worker.executed import save
from tests.conftest import GRADIENT, ORACLE, Read
from tests.judge.test_verdicts import executed

WRONG = ORACLE.replace("4 * np", "6 * np")


def is_published(lesson: str, key: str) -> bool:
    """The handouts of every lesson are on the course page."""
    return True


def default_run(lesson: Lesson) -> Run:
    """The run of a lesson with its default parameters."""
    return planner.Run(lesson, lesson.defaults)


def fake_execution(
    run: Run, build: Path, *, status: str = "completed", meanwhile: Callable[[], object] = id
) -> Outcome:
    """Pretend to execute `run`, whose cell shows 4 i, and record the outcome.

    `meanwhile` is called while the run executes.
    """
    run_cache = RunCache(build, LocalExecutor().facts)
    run_cache.work([run], is_published, fresh=True)
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
    """The work of the next plan."""
    return RunCache(build, LocalExecutor().facts).work(runs, is_published, fresh=fresh)


def judge_again(run: Run, build: Path) -> Outcome:
    """Judge the recorded notebook of `run` again, and record the outcome."""
    run_cache = RunCache(build, LocalExecutor().facts)
    (previous,) = run_cache.work([run], is_published).judge
    return keep(verdicts.judge_again(previous, oracle.load(run.lesson)), run_cache)


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with an oracle."""
    return read(GRADIENT, expected=ORACLE)


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


def test_a_changed_rank_program_is_executed_again(lesson: Lesson, tmp_path: Path) -> None:
    """A rank program is an input of the run, like the script."""
    (lesson.path.parent / "parallel").mkdir()
    (lesson.path.parent / "parallel" / "ring.py").write_text("a = 1\n")
    fake_execution(default_run(lesson), tmp_path)
    assert work(default_run(lesson), build=tmp_path).execute == []
    (lesson.path.parent / "parallel" / "ring.py").write_text("a = 2\n")
    assert len(work(default_run(lesson), build=tmp_path).execute) == 1


def test_another_number_of_threads_is_another_run(lesson: Lesson, tmp_path: Path) -> None:
    """Threads can change sums. Both runs are recorded."""
    two = replace(default_run(lesson), threads=2)
    fake_execution(default_run(lesson), tmp_path)
    assert work(two, build=tmp_path).execute == [two]
    fake_execution(two, tmp_path)
    assert work(two, build=tmp_path).execute == []
    assert work(default_run(lesson), build=tmp_path).execute == []


def test_a_newly_installed_package_executes_a_run_again(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lesson could use the package."""
    fake_execution(default_run(lesson), tmp_path)
    (tmp_path / "site" / "torch-9.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "torch-9.dist-info" / "RECORD").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert len(work(default_run(lesson), build=tmp_path).execute) == 1


def test_a_changed_oracle_judges_the_recorded_notebook(
    lesson: Lesson, read: Read, tmp_path: Path
) -> None:
    """With a wrong oracle it differs, with the right one it is verified, without a kernel."""
    fake_execution(default_run(lesson), tmp_path)
    run = default_run(read(GRADIENT, expected=WRONG))
    differs = judge_again(run, tmp_path)
    assert (differs.status, differs.green) == ("differs", False)
    run = default_run(read(GRADIENT, expected=ORACLE + "# more\n"))
    verified = judge_again(run, tmp_path)
    assert verified.status == "verified"
    assert verified.reason == "executed 2026-01-01 12:00 UTC, judged again"
    assert len(list((tmp_path / "runs").glob("*/*/*"))) == 1
    assert work(run, build=tmp_path).unchanged[0].facts["date"] == "2026-01-01 12:00 UTC"


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


@pytest.mark.parametrize("name", ["01_small.py", "data.csv", "expected/01_small.py"])
def test_a_run_whose_input_changed_meanwhile_is_not_recorded(
    lesson: Lesson, tmp_path: Path, name: str
) -> None:
    """Either version could have been executed, even if the change was reverted later."""
    path = lesson.path.parent / name
    (lesson.path.parent / "data.csv").write_text("1")
    before = path.read_text()
    outcome = fake_execution(
        default_run(lesson), tmp_path, meanwhile=lambda: path.write_text(before + "\n")
    )
    assert outcome.key == ""
    path.write_text(before)
    assert len(work(default_run(lesson), build=tmp_path).execute) == 1


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


def test_a_known_lesson_equals_one_that_is_read(lesson: Lesson, tmp_path: Path) -> None:
    """An unchanged script is not read again."""
    parsed, remembered = (known_lessons.read(lesson.path, tmp_path) for _ in range(2))
    assert parsed == remembered == reader.read(lesson.path)


def test_a_damaged_or_outdated_record_of_a_lesson_is_unused(lesson: Lesson, tmp_path: Path) -> None:
    """The lesson comes from the script."""
    known_lessons.read(lesson.path, tmp_path)
    (memory,) = (tmp_path / "records" / "lessons").iterdir()
    digest, data = memory.read_text().split("\n")
    other = pickle.dumps(pickle.loads(base64.b64decode(data)).path)
    memory.write_text(f"{digest}\n{base64.b64encode(other).decode()}")
    assert "4.0" in known_lessons.read(lesson.path, tmp_path).notebook.cells[-1].source
    lesson.path.write_text(lesson.path.read_text().replace("4.0", "6.0"))
    assert "6.0" in known_lessons.read(lesson.path, tmp_path).notebook.cells[-1].source


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


def test_a_change_of_prose_is_rendered_and_not_executed(lesson: Lesson, tmp_path: Path) -> None:
    """The notebook has the new prose and the outputs of the execution, with the current ids."""
    fake_execution(default_run(lesson), tmp_path)
    text = lesson.path.read_text()
    lesson.path.write_text(text + "\n# %% [markdown]\n# New prose.\n")
    changed = reader.read(lesson.path)
    assert work(default_run(changed), build=tmp_path).execute == []
    outcome = judge_again(default_run(changed), tmp_path)
    assert outcome.status == "verified"
    assert outcome.notebook
    assert outcome.notebook.cells[-1].source == "New prose."
    assert [c.id for c in outcome.notebook.cells] == [c.id for c in changed.notebook.cells]
