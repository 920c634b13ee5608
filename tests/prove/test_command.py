"""`invoke prove`: what it reports and leaves, and the mistakes that are named for the course."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from ci.errors import UsageError
from ci.lesson import reader
from ci.lesson.lesson import find_lessons
from ci.prove import prove
from ci.prove.mutants_file import MutantsFile
from tests.conftest import GRADIENT, ORACLE, ROOT, Write
from tests.prove.test_mutants import NAMED, mutants_file
from tests.prove.test_prove import HARMLESS, USED, named

TASKS = ROOT / "tasks.py"


def test_a_seed_must_be_a_whole_number() -> None:
    """A bad option is a usage error."""
    with pytest.raises(UsageError, match="--seed -1: must be a whole number"):
        prove.prove(prove.Options(seed="-1"), ROOT)


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
