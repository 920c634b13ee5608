"""Mutants of a small course, tried in real processes."""

from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.execute import engine
from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.prove import prove
from ci.prove.forks import MutantStatus
from ci.prove.mutants_file import MutantsFile
from ci.prove.prove import Result
from tests.conftest import GRADIENT, ORACLE, Read
from tests.prove.test_mutants import EQUIVALENT, NAMED, mutants_file

HARMLESS = "# %%\nunused = 1\nused = 2\n"
USED = '# %% check="gradient"\nused / 2 * 4.0 * np.arange(size)\n'


def named(replacement: str, text: str = "4.0 * np.arange(size)") -> str:
    """An entry that plants a mistake in the cell of the check."""
    entry = NAMED.replace('"4.0 *"', f'"{text}"')
    return entry.replace('"4.0 +"', f"'''{replacement}'''")


def tried(lesson: Lesson, file: MutantsFile, sample: int | None = 0) -> list[Result]:
    """The named mutants and a sample of the others, with their verdicts."""
    chosen = prove.choose(file, [lesson], sample=sample, seed=0)
    return list(prove.try_mutants(chosen, [lesson], file, jobs=2))


def statuses(results: list[Result], text: str = "") -> list[MutantStatus]:
    """The statuses of the mutants whose changed lines contain `text`."""
    return [verdict.status for mutant, verdict in results if text in mutant.after]


def by_the_pipeline(lesson: Lesson, folder: Path) -> str:
    """The status that `invoke run` would give the lesson."""
    (run,) = planner.runs([lesson], [], [])
    *_, end = engine.execute([run], folder, LocalExecutor())
    return verdicts.judge(end.execution, oracle.load(lesson)).status


def test_the_same_seed_draws_the_same_sample(read: Read, tmp_path: Path) -> None:
    """Another seed draws other mutants; every sample is in the order of the text."""
    lesson, file = read(HARMLESS + USED, expected=ORACLE), mutants_file(tmp_path, NAMED)
    drawn = [prove.choose(file, [lesson], sample=6, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(sample) for sample in drawn] == [7, 7, 7]
    everything = prove.choose(file, [lesson], sample=None, seed=0)
    assert drawn[0] == [mutant for mutant in everything if mutant in drawn[0]]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("replacement", "status", "pipeline"),
    [
        ("6.0 * np.arange(size)", "differs", "differs"),
        ("4.0 * np.arange(size) / 0", "differs", "differs"),
        ("4.0 * np.arange(size, dtype='float32')", "differs", "differs"),
        ("4.0 * np.arange(siz)", "error", "failed"),
        ("import sys; sys.exit(0)\nsize", "error", "failed"),
        ("import os; os._exit(0)\nsize", "error", "failed"),
        ("np.arange(size) * 4.0", "survived", "verified"),
    ],
)
def test_a_mutant_is_judged_as_the_pipeline_does(
    read: Read, tmp_path: Path, replacement: str, status: str, pipeline: str
) -> None:
    """Forks and a real kernel agree on each verdict."""
    lesson = read(expected=ORACLE)
    results = tried(lesson, mutants_file(tmp_path, named(replacement)))
    assert statuses(results) == [status]
    assert prove.exit_status(results) == (status == "survived")
    mutated = read(GRADIENT.replace("4.0 * np.arange(size)", replacement), expected=ORACLE)
    assert by_the_pipeline(mutated, tmp_path / "runs") == pipeline


@pytest.mark.kernel
def test_a_named_mutant_must_be_noticed_by_its_check(
    read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not enough that another check differs."""
    second = '# %% check="double"\n8.0 * np.arange(size)\n'
    oracles = ORACLE + ORACLE.partition("\n\n\n")[2].replace("gradient", "double").replace(
        "return 4", "return 8"
    )
    lesson = read(GRADIENT + second, expected=oracles)
    file = mutants_file(tmp_path, NAMED.replace("gradient", "double"))
    results = tried(lesson, file)
    assert statuses(results) == ["survived"]
    prove.show(results, file)
    assert "it must make 'double' differ" in capsys.readouterr().out


@pytest.mark.kernel
def test_survivors_are_found_unless_declared(read: Read, tmp_path: Path) -> None:
    """All other mutants are noticed, in the lesson and in its oracle."""
    lesson = read(HARMLESS + USED, expected=ORACLE)
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    assert {m.before for m, verdict in results if verdict.status == "survived"} == {"unused = 1"}
    assert prove.exit_status(results) == 1
    noticed = {m.kind for m, verdict in results if verdict.status in ("differs", "error")}
    assert noticed == {"constant", "* and /", "dropped statement", "oracle"}
    declared = EQUIVALENT.replace('"gradient"', '""').replace("4.0 * np.arange(size)", "unused = 1")
    declared = declared.replace('replacement = "4.0 / np.arange(size)"\n', "")
    results = tried(lesson, mutants_file(tmp_path, declared), sample=None)
    assert prove.exit_status(results) == 0
    assert {v.reason for _, v in results if v.status == "equivalent"} == {"for the test"}


def test_a_declared_mutant_is_not_tried(read: Read, tmp_path: Path) -> None:
    """Nothing would end its trial before the last cell, so no process is started."""
    file = mutants_file(tmp_path, EQUIVALENT)
    lesson = read(expected=ORACLE)
    [declared] = [mutant for mutant in file.generated([lesson]) if mutant.equivalent]
    [(_, verdict)] = prove.try_mutants([declared], [], file, jobs=1)
    assert (verdict.status, verdict.reason) == (MutantStatus.EQUIVALENT, "for the test")


@pytest.mark.kernel
def test_a_mutant_that_hangs_is_killed(read: Read, tmp_path: Path) -> None:
    """After its deadline it counts as noticed."""
    file = mutants_file(tmp_path, named("while True: pass\nsize"))
    results = tried(read(expected=ORACLE), file)
    assert statuses(results) == ["timed out"]
    assert prove.exit_status(results) == 0


@pytest.mark.kernel
def test_other_parameters_notice_what_the_defaults_do_not(read: Read, tmp_path: Path) -> None:
    """The mistake shows only with more than four elements."""
    cells = '# %% check="gradient"\n4.0 * np.minimum(np.arange(size), 30)\n'
    oracles = ORACLE.replace("np.arange(size, dtype=float)", "np.minimum(np.arange(size), 30.0)")
    lesson = read(cells, expected=oracles)
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    assert statuses(results, "31") == ["survived", "survived"]
    extra = '[[extra_parameters]]\nlesson = "01"\nparameters = { size = 64 }\n'
    results = tried(lesson, mutants_file(tmp_path, extra), sample=None)
    assert statuses(results, "31") == ["differs", "differs"]


@pytest.mark.kernel
def test_a_text_for_the_wrong_case_is_noticed(read: Read, tmp_path: Path) -> None:
    """The cell prints in one case only; its oracle knows in which."""
    source = '# %% stdout="text"\nif size == 1:\n    print("one")\n'
    oracle = 'def text(size):\n    """One."""\n    return "one" if size == 1 else ""\n'
    results = tried(read(source, expected=oracle), mutants_file(tmp_path), sample=None)
    assert statuses(results, "if size != 1:") == [MutantStatus.DIFFERS]


@pytest.mark.kernel
def test_a_mistake_after_ranks_were_started_is_compared(read: Read, tmp_path: Path) -> None:
    """The parent of the forks has started ranks before, and the fork starts some again."""
    start = (
        "# %%\nimport time\nfrom multiprocessing import get_context\ndef start():\n"
        '    started = get_context("forkserver").Process(target=time.sleep, args=(0,))\n'
        "    started.start()\n    started.join()\n    return started.exitcode\n"
    )
    ranks = (
        '# %%\ncode = start()\n# %% check="gradient"\n(start() + 4.0 + code) * np.arange(size)\n'
    )
    lesson = read(start + ranks, expected=ORACLE)
    file = mutants_file(tmp_path, named("start() + 5.0 + code", text="start() + 4.0 + code"))
    assert statuses(tried(lesson, file)) == [MutantStatus.DIFFERS]


@pytest.mark.kernel
def test_a_lesson_that_is_wrong_proves_nothing(read: Read, tmp_path: Path) -> None:
    """Each of its mutants would differ, whether or not a check notices the mistake."""
    lesson = read(GRADIENT.replace("4.0", "6.0"), expected=ORACLE)
    with pytest.raises(CourseError, match="01_small is not verified as it is: gradient"):
        tried(lesson, mutants_file(tmp_path, named("1", text="np.arange(size)")))
