"""Processes by a name that no later one has."""

import subprocess
import sys

from ci.lab import owner


def test_this_process_lives() -> None:
    """By the name that it gives itself."""
    assert not owner.has_exited(owner.current_process())


def test_a_process_that_ended_does_not() -> None:
    """Its id is free, or somebody else's."""
    code = "from ci.lab import owner; print(owner.current_process())"
    name = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert owner.has_exited(name.strip())


def test_another_process_of_the_same_id_is_another() -> None:
    """Ids are given out again, and after a boot all of them."""
    boot, pids, user, pid, started = owner.current_process().split()
    assert owner.has_exited(f"{boot} {pids} {user} {pid} {float(started) - 3600}")
    assert owner.has_exited(f"{boot[::-1]} {pids} {user} {pid} {started}")


def test_what_we_may_not_see_is_not_gone() -> None:
    """A process of another container, or, unless we are root, of another user."""
    boot, pids, user, _, started = owner.current_process().split()
    assert not owner.has_exited(f"{boot} pid:[1] {user} 4194305 {started}")
    others = f"{boot} {pids} {int(user) + 1} 4194305 {started}"
    assert owner.has_exited(others) == (user == "0")
