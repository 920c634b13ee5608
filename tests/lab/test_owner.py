"""The names of processes, which are never reused."""

import subprocess
import sys

from ci.lab import owner


def test_this_process_has_not_exited() -> None:
    """Under its own name."""
    assert not owner.has_exited(owner.current_process())


def test_a_process_that_has_ended_has_exited() -> None:
    """Its process id is free, or reused."""
    code = "from ci.lab import owner; print(owner.current_process())"
    name = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert owner.has_exited(name.strip())


def test_a_reused_process_id_is_another_process() -> None:
    """The system reuses process ids, and starts again after a boot."""
    boot, pids, user, pid, started = owner.current_process().split()
    assert owner.has_exited(f"{boot} {pids} {user} {pid} {float(started) - 3600}")
    assert owner.has_exited(f"{boot[::-1]} {pids} {user} {pid} {started}")


def test_an_invisible_process_counts_as_running() -> None:
    """A process of another container, or of another user unless the caller is root."""
    boot, pids, user, _, started = owner.current_process().split()
    assert not owner.has_exited(f"{boot} pid:[1] {user} 4194305 {started}")
    others = f"{boot} {pids} {int(user) + 1} 4194305 {started}"
    assert owner.has_exited(others) == (user == "0")
