"""What a changed input executes, judges or renders again."""

from dataclasses import replace
from pathlib import Path

import pytest

from ci.lesson import reader
from ci.lesson.lesson import Lesson
from tests.conftest import GRADIENT, ORACLE, Read
from tests.plan.conftest import WRONG, default_run, fake_execution, judge_again, work


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
