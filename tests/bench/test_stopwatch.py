"""CPU time and memory are those of a whole process tree."""

import os
import sys
import time
from pathlib import Path

import pytest

from ci.errors import CourseError
from tests.bench import stopwatch
from tests.bench.stopwatch import Sample


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
    with pytest.raises(CourseError, match="not done in 4 s"):
        watched(tmp_path, program, deadline_s=4.0)
    assert time.monotonic() - began < 20
    assert not Path("/proc", (tmp_path / "child").read_text()).exists()
