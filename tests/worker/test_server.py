"""The worker's care for what its runs leave, in a process of its own."""

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
    """Whether `expected` is what is left of one child, and whether the child still exists."""
    program = PROGRAM.format(expected=expected, setup=setup, spared=spared)
    return subprocess.check_output([sys.executable, "-c", program], text=True).strip()


def test_descendants_are_killed() -> None:
    """None is reported as left."""
    assert outcome("set()") == "True False"


def test_a_process_that_cannot_be_killed_is_reported() -> None:
    """One that is stuck in a driver ignores SIGKILL: the loop ends all the same."""
    setup = (
        "server.KILL_S = 0.2\n"
        "psutil.Process.kill = lambda self: None\n"
        "psutil.wait_procs = lambda children, timeout: ([], children)"
    )
    assert outcome("{child.pid}", setup=setup) == "True True"


def test_a_process_may_be_spared() -> None:
    """As the fork server is between two runs."""
    assert outcome("set()", spared="spare={child.pid}") == "True True"
