"""How everything that a run has left is ended; each test uses a separate process."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import os, subprocess, sys, psutil
from ci.worker import processes
processes.adopt_orphans()
orphan = '''
import subprocess
print(subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=-3).pid)
'''
child = subprocess.Popen(["sleep", "600"])
orphaned = psutil.Process(int(subprocess.check_output([sys.executable, "-c", orphan])))
{setup}
left = processes.kill_descendants({how})
print(left == {expected}, psutil.pid_exists(child.pid), psutil.pid_exists(orphaned.pid))
child.kill()
"""


def outcome(expected: str, *, setup: str = "", how: str = "") -> str:
    """Whether the processes left are `expected`, and whether child and orphan still exist."""
    program = PROGRAM.format(expected=expected, setup=setup, how=how)
    return subprocess.check_output([sys.executable, "-c", program], text=True).strip()


def test_descendants_are_killed() -> None:
    """Also one that has lost its parent and has a session of its own; none is reported."""
    assert outcome("set()") == "True False False"


def test_only_in_a_container_are_all_processes_killed_at_once() -> None:
    """Not on a machine where the first process adopts the run's."""
    setup = (
        "os.environ[processes.PRIVATE], os.getppid, kill = '/tmp', lambda: 1, os.kill\n"
        "os.kill = lambda pid, number: kill(pid, number) if pid > 0 else print('all')"
    )
    assert outcome("set()", setup=setup, how="alone=True") == "True False False"


def test_only_a_container_is_emptied(tmp_path: Path) -> None:
    """Not the folders of a machine with the same variable."""
    kept = tmp_path / "kept"
    kept.touch()
    setup = (
        f"os.environ[processes.PRIVATE], os.getppid = {str(tmp_path)!r}, lambda: 1\n"
        "processes.empty_container()"
    )
    assert outcome("set()", setup=setup) == "True False False"
    assert kept.exists()


def test_a_process_that_cannot_be_killed_is_reported() -> None:
    """A process that is stuck in a driver ignores SIGKILL; the loop ends anyway."""
    setup = (
        "processes.KILL_S = 0.2\n"
        "kill, wait = psutil.Process.kill, psutil.wait_procs\n"
        "psutil.Process.kill = lambda p: p.pid == child.pid or kill(p)\n"
        "psutil.wait_procs = lambda found, timeout: wait(found, 0.1)"
    )
    assert outcome("{child.pid}", setup=setup) == "True True False"


def test_many_processes_have_the_time_that_they_need() -> None:
    """None is reported as long as one after the other ends."""
    setup = (
        "import time\n"
        "processes.KILL_S = 2\n"
        "kill, wait, next_kill = psutil.Process.kill, psutil.wait_procs, 0\n"
        "def kill_slowly(process):\n"
        "    global next_kill\n"
        "    if time.monotonic() > next_kill:\n"
        "        next_kill = time.monotonic() + 0.8\n"
        "        kill(process)\n"
        "psutil.Process.kill = kill_slowly\n"
        "psutil.wait_procs = lambda found, timeout: wait(found, 0.1)\n"
        "for _ in range(3): subprocess.Popen(['sleep', '60'], stdout=-3)"
    )
    assert outcome("set()", setup=setup) == "True False False"


def test_children_can_be_spared() -> None:
    """For example other runs, when one was lost."""
    assert outcome("set()", how="spare={child.pid}") == "True True False"
