"""How a worker ends the processes that a run has left; each test uses a separate process."""

import subprocess
import sys

PROGRAM = """\
import subprocess, psutil
from ci.worker import server
child = subprocess.Popen(["sleep", "600"])
{setup}
left = server.kill_descendants({spared})
print(left == {expected}, psutil.pid_exists(child.pid))
child.kill()
"""


def outcome(expected: str, *, setup: str = "", spared: str = "") -> str:
    """Whether the processes left are `expected`, and whether the one child still exists."""
    program = PROGRAM.format(expected=expected, setup=setup, spared=spared)
    return subprocess.check_output([sys.executable, "-c", program], text=True).strip()


def test_descendants_are_killed() -> None:
    """The child is gone, and none is reported."""
    assert outcome("set()") == "True False"


def test_a_process_that_cannot_be_killed_is_reported() -> None:
    """A process that is stuck in a driver ignores SIGKILL; the loop ends anyway."""
    setup = (
        "server.KILL_S = 0.2\n"
        "psutil.Process.kill = lambda self: None\n"
        "psutil.wait_procs = lambda children, timeout: ([], children)"
    )
    assert outcome("{child.pid}", setup=setup) == "True True"


def test_a_process_can_be_spared() -> None:
    """For example the fork server, between two runs."""
    assert outcome("set()", spared="spare={child.pid}") == "True True"
