"""`invoke prove` in a small course, with real processes."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from ci.errors import CourseError, UsageError
from ci.execute import engine
from ci.execute.local import LocalExecutor
from ci.judge import verdicts
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson, find_lessons
from ci.plan import planner
from ci.prove import prove
from ci.prove.forks import MutantStatus
from ci.prove.mutants_file import MutantsFile
from ci.prove.prove import Result
from tests.conftest import GRADIENT, ORACLE, ROOT, Read, Write
from tests.prove.test_mutants import EQUIVALENT, NAMED, mutants_file

TASKS = ROOT / "tasks.py"
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


def test_a_seed_must_be_a_whole_number() -> None:
    """A bad option is a usage error."""
    with pytest.raises(UsageError, match="--seed -1: must be a whole number"):
        prove.prove(prove.Options(seed="-1"), ROOT)


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
def test_a_mistake_in_a_module_is_noticed(read: Read, tmp_path: Path) -> None:
    """A lesson imports the module with the mistake; the lessons' folder is not written to."""
    lesson = read("# %%\nfrom ranks import add\n" + USED.replace("used / 2", "add(2, -1)"))
    lesson = read(lesson.path.read_text().partition("import numpy as np\n")[2], expected=ORACLE)
    ranks = lesson.path.with_name("ranks.py")
    ranks.write_text("def add(a, b):\n    return a + b\n")
    before = ranks.stat()
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    noticed = {verdict.status for mutant, verdict in results if mutant.file == "ranks.py"}
    assert noticed == {"differs", "error"}
    assert ranks.stat() == before
    assert sorted(p.name for p in lesson.path.parent.iterdir()) == [
        "01_small.py",
        "expected",
        "ranks.py",
    ]


@pytest.mark.kernel
def test_another_lesson_may_notice_a_mistake_in_a_module(read: Read, tmp_path: Path) -> None:
    """Of the modules of a selected lesson; the mutants of other files are not tried."""
    module = "FACTOR, TERM = 4.0, 0.0\n"
    cells = '# %%\nfrom ranks import {0}\n# %% check="gradient"\n{1} * np.arange(size){2}\n'
    first = read(cells.format("FACTOR", "FACTOR", ""), expected=ORACLE)
    other = cells.format("TERM", "4.0", " + TERM")
    second = read(other, expected=ORACLE, name="02_other")
    first.path.with_name("ranks.py").write_text(module)
    lessons, file = [first, second], mutants_file(tmp_path)
    chosen = prove.choose(file, lessons, sample=None, seed=0, selected=1)
    results = list(prove.try_mutants(chosen, lessons, file, jobs=2))
    assert "02_other.py" not in {mutant.file.rpartition("/")[2] for mutant in chosen}
    assert statuses(results, "FACTOR, TERM = 4.0, 1.0") == [MutantStatus.DIFFERS]
    assert list(prove.try_mutants(chosen, [first], file, jobs=2)) != results


@pytest.mark.kernel
def test_a_mistake_in_a_package_that_is_known_is_noticed(read: Read, tmp_path: Path) -> None:
    """An earlier cell has imported another module of the package."""
    lesson = read(
        "# %%\nfrom ranks.one import one\n# %%\nfrom ranks.add import add\n"
        '# %% check="gradient"\nadd(one, 3) * 1.0 * np.arange(size)\n',
        expected=ORACLE,
    )
    package = lesson.path.with_name("ranks")
    package.mkdir()
    for name, text in {
        "__init__": "",
        "one": "one = 1\n",
        "add": "def add(a, b):\n    return a + b\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    assert statuses(results, "return a - b") == [MutantStatus.DIFFERS]


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
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    assert statuses(results, "(start() + 5.0 + code)") == [MutantStatus.DIFFERS]


@pytest.mark.kernel
def test_an_error_in_a_figure_is_noticed(read: Read, tmp_path: Path) -> None:
    """Figures are executed for the mutants that no check notices, but nothing else about them."""
    figure = '# %% tags=["figure"]\nheight = 1 + ratio(2)\n'
    lesson = read("# %%\nfrom ranks import ratio\n" + GRADIENT + figure, expected=ORACLE)
    lesson.path.with_name("ranks.py").write_text("def ratio(a):\n    return 3 / a\n")
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    found = {m.after: verdict.status for m, verdict in results if m.file == "ranks.py"}
    assert found == {"return 4 / a": "survived", "return 3 * a": "survived", "pass": "error"}


@pytest.mark.kernel
def test_a_lesson_that_is_wrong_proves_nothing(read: Read, tmp_path: Path) -> None:
    """Each of its mutants would differ, whether or not a check notices the mistake."""
    lesson = read(GRADIENT.replace("4.0", "6.0"), expected=ORACLE)
    with pytest.raises(CourseError, match="01_small is not verified as it is: gradient"):
        tried(lesson, mutants_file(tmp_path, named("1", text="np.arange(size)")))


@pytest.mark.kernel
def test_the_command_reports_survivors(write: Write, tmp_path: Path) -> None:
    """It prints the table and each survivor, exits with 1, and leaves only its JSON in build/."""
    write(HARMLESS + USED, expected=ORACLE)
    shutil.copy(TASKS, tmp_path)
    (tmp_path / "tests").mkdir()
    mutants_file(tmp_path / "tests", NAMED)
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "prove", "--all"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "survived: lessons/01_small.py:18: unused = 1  ->  pass" in done.stdout
    assert "01_small" in done.stdout and "dropped statement" in done.stdout
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["prove.json"]
    verdicts = json.loads((tmp_path / "build/prove.json").read_text())
    assert {verdict["status"] for verdict in verdicts} >= {"differs", "survived"}


@pytest.mark.kernel
def test_nothing_remains_of_a_killed_command(write: Write, tmp_path: Path) -> None:
    """The process of the lesson and the mutant that it tries end at once."""
    write(GRADIENT, expected=ORACLE)
    shutil.copy(TASKS, tmp_path)
    (tmp_path / "tests").mkdir()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hangs = f"open('{pipe}', 'w').close()\nwhile True: pass\nsize"
    mutants_file(tmp_path / "tests", named(hangs))
    command = [sys.executable, "-m", "invoke", "prove", "--sample", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        pipe.read_text()  # returns when the mutant has opened and closed it
        its_processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(its_processes) >= 2
    assert psutil.wait_procs(its_processes, timeout=3)[1] == []


def test_the_mistakes_of_the_course_are_in_its_lessons() -> None:
    """At least forty are named, and every entry is about a lesson that exists."""
    root = TASKS.parent
    path = root / "tests" / "mutants.toml"
    lessons = [reader.read(script) for script in find_lessons(root / "lessons")]
    named = [m for m in prove.choose(MutantsFile(path), lessons, sample=0, seed=0) if m.check]
    entries = [e for table in tomllib.loads(path.read_text()).values() for e in table]
    numbers = {lesson.name.partition("_")[0] for lesson in lessons}
    assert len(named) >= 40
    assert {entry["lesson"] for entry in entries if "lesson" in entry} <= numbers
