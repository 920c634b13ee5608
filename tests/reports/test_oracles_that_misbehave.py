"""Oracles that ended, hung or deceived the pipeline, each with its one line today.

The cases are from this project's own reviews.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest

from ci.errors import CourseError
from ci.lesson import oracle
from ci.lesson.lesson import Lesson
from tests.conftest import GRADIENT, ORACLE, Read

ENDS = {
    "os._exit": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "a signal": "import signal; signal.raise_signal(9)",
    "GeneratorExit": "raise GeneratorExit",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "recursion": "f = lambda: f(); f()",
    "a message of half a surrogate pair": "raise ValueError('\\ud800')",
    "an error that has no text": "raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})",
    "a list in itself": "a = []; a.append(a); return a",
    "an endless integer": "return 10**5000",
    "half a surrogate pair": "return '\\ud800'",
    "an object": "return object()",
    "nothing": "return None",
    "bytes to each descriptor": (
        "import os\nfor n in range(3, 99):\n"
        "    try: os.write(n, b'x' * 99)\n    except OSError: pass"
    ),
    "closed descriptors": "import os; os.closerange(0, 99)",
    "an abort": "import os; os.abort()",
    "a signal of a timer": "import signal, time; signal.setitimer(0, 0.01); time.sleep(1)",
    "a group of exceptions": "raise BaseExceptionGroup('g', [KeyboardInterrupt()])",
    "a masked array": "return np.ma.masked_array([1.0, 2.0], [0, 1])",
    "a subclass of str": "return type('S', (str,), {})('a')",
}


@pytest.fixture
def outside(tmp_path: Path) -> str:
    """A file that is no lesson's."""
    path = tmp_path / "written_by_the_lesson.txt"
    path.write_text("7")
    return str(path)


def failing(read: Read, body: str) -> Lesson:
    """A lesson whose oracle is `body`."""
    lines = body.replace("return object()", "return object()")
    return read(GRADIENT, expected=ORACLE.replace("    return 4", f"    {lines}\n    return 4"))


@pytest.mark.parametrize("case", ENDS)
def test_an_oracle_that_computes_nothing_is_at_fault(read: Read, case: str) -> None:
    """One line for any exception or end of its process; the next call computes again."""
    lesson = failing(read, "if size == 2:\n" + indent(ENDS[case], " " * 8))
    found = oracle.load(lesson)["gradient"]
    with pytest.raises(CourseError, match=r"^its oracle failed: [^\n]+$"):
        found.value({"size": 2})
    assert found.value({"size": 3}).value.shape == (3,)


@pytest.mark.parametrize("case", ENDS)
def test_an_oracle_file_that_does_not_load_is_at_fault(read: Read, case: str) -> None:
    """Statements of the file itself are bounded in the same way."""
    statement = ENDS[case].replace("return ", "raise ")
    lesson = read(GRADIENT, expected=ORACLE + "\n" + statement + "\n")
    with pytest.raises(CourseError, match=r"^lessons/expected/01_small.py[^\n]+$"):
        oracle.load(lesson)


def test_an_oracle_that_swallows_everything_is_ended(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ignores errors and signals."""
    monkeypatch.setattr(oracle, "DEADLINE_S", 0.3)
    stubborn = (
        "import signal\n    for s in (2, 14, 15): signal.signal(s, signal.SIG_IGN)\n"
        "    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass"
    )
    found = oracle.load(failing(read, stubborn))["gradient"]
    started = time.monotonic()
    with pytest.raises(CourseError, match=r"TimeoutError: not finished within 0.3 s"):
        found.value({"size": 4})
    assert time.monotonic() - started < 10


FORBIDDEN = {
    "torch by pkgutil": "import pkgutil; pkgutil.resolve_name('torch:ones')",
    "torch by builtins": "import builtins; builtins.__import__('torch')",
    "torch again": "import sys, builtins; del sys.modules['torch']; builtins.__import__('torch')",
    "a file of the lesson": "return int(open(OUTSIDE).read())",
    "a file through ..": "return open(__file__ + '/../../../../etc/hostname').read()",
    "another program": "import os; os.system('true')",
    "a database": "import sqlite3; sqlite3.connect(OUTSIDE)",
    "a library of another language": "import ctypes; ctypes.CDLL('libc.so.6')",
    "another process": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "a new file": "open(__file__ + '.txt', 'w')",
    "a hidden file": "import os; return open(os.path.dirname(__file__) + '/.h').read()",
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_an_oracle_reads_only_what_its_key_covers(read: Read, case: str, outside: str) -> None:
    """It cannot reach torch, what the lesson has written, other programs or hidden files."""
    lesson = failing(read, FORBIDDEN[case].replace("OUTSIDE", repr(outside)))
    with pytest.raises(CourseError, match="NotFoundError|ImportError|PermissionError|ctypes"):
        oracle.load(lesson)["gradient"].value({"size": 4})


def test_an_oracle_may_read_the_files_of_the_lessons(read: Read) -> None:
    """Tables beside the lesson or its expected values are part of its key."""
    lesson = failing(read, "return int(open(__file__.replace('.py', '.txt')).read())")
    (lesson.path.parent / "expected" / "01_small.txt").write_text("7")
    assert oracle.load(lesson)["gradient"].value({"size": 4}).value == 7


def test_what_an_oracle_registers_for_the_exit_has_no_effect(tmp_path: Path, read: Read) -> None:
    """`atexit.register(os._exit, 0)` made a lesson that differs end with status 0."""
    lesson = read(GRADIENT, expected="import atexit, os\natexit.register(os._exit, 0)\n" + ORACLE)
    code = (
        "import sys; from pathlib import Path; from ci.lesson import oracle, reader\n"
        "oracle.load(reader.read(Path(sys.argv[1]))); sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code, lesson.path], check=False)
    assert done.returncode == 7


@pytest.mark.parametrize("options", ['rel="1e-6", why="w"', "abs=None", 'rel=-1, why="w"'])
def test_a_rule_that_is_none_is_reported_with_its_check(read: Read, options: str) -> None:
    """Before anything runs, with the file."""
    lesson = read(GRADIENT, expected=ORACLE.replace('dtype="float64"', options))
    message = r"^lessons/expected/01_small.py: ValueError: @expect of 'gradient': [^\n]* must be a"
    with pytest.raises(CourseError, match=message):
        oracle.load(lesson)


@pytest.mark.parametrize("change", ["rel=5.0", "abs=1e9", "rel=-1.0", "zero=1"])
def test_a_rule_that_was_changed_is_validated_again(read: Read, change: str) -> None:
    """A rule is frozen, but its fields can be reached."""
    changed = f"{ORACLE}\nvars(gradient.rule).update({change})\n"
    with pytest.raises(CourseError, match=r"^lessons/expected/01_small.py: ValueError: [^\n]*$"):
        oracle.load(read(GRADIENT, expected=changed))


def test_what_an_oracle_leaves_behind_prints_no_traceback(
    read: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    """An event loop cannot open its sockets, nor close them when it is deleted."""
    lesson = failing(read, "import asyncio; asyncio.run(asyncio.sleep(0))")
    with pytest.raises(CourseError, match="PermissionError"):
        oracle.load(lesson)["gradient"].value({"size": 4})
    assert capfd.readouterr().err == ""


def test_a_byte_order_mark_is_no_code(read: Read) -> None:
    """Editors on Windows write one."""
    assert "gradient" in oracle.load(read(GRADIENT, expected="\ufeff" + ORACLE))


def test_docstrings_are_kept_without_them_in_the_interpreter(read: Read) -> None:
    """PYTHONOPTIMIZE=2 removes docstrings, which are derivations here."""
    lesson = read(GRADIENT, expected=ORACLE)
    code = (
        "import sys; from pathlib import Path; from ci.lesson import oracle, reader\n"
        "print(oracle.load(reader.read(Path(sys.argv[1])))['gradient'].derivation)"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code, lesson.path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "dy/dx_i = 4 x_i.\n"


def test_a_fork_of_the_pipeline_has_its_own_oracles(read: Read) -> None:
    """Two processes that share a connection would get each other's answers."""
    found = oracle.load(read(GRADIENT, expected=ORACLE))["gradient"]
    child = os.fork()
    if child == 0:
        right = found.value({"size": 5}).value.shape == (5,)
        os._exit(0 if right else 1)
    assert found.value({"size": 6}).value.shape == (6,)
    assert os.waitpid(child, 0)[1] == 0


def test_an_oracle_cannot_change_the_arguments_of_the_next(read: Read) -> None:
    """Each call gets copies of the givens."""
    lesson = failing(read, "size.fill(7)")
    known = {"size": np.ones(2)}
    with pytest.raises(CourseError):
        oracle.load(lesson)["gradient"].value(known)
    assert known["size"].tolist() == [1.0, 1.0]
