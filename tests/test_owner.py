"""Processes by a name that no later one has."""

import subprocess
import sys

from ci import owner


def test_this_process_lives() -> None:
    """By the name that it gives itself."""
    assert owner.lives(owner.this())


def test_a_process_that_ended_does_not() -> None:
    """Its id is free, or somebody else's."""
    said = subprocess.check_output(
        [sys.executable, "-c", "from ci import owner; print(owner.this())"], text=True
    )
    assert not owner.lives(said.strip())


def test_another_process_of_the_same_id_is_another() -> None:
    """Ids are given out again, and after a boot all of them."""
    boot, pid, started = owner.this().split()
    assert not owner.lives(f"{boot} {pid} {float(started) - 3600}")
    assert not owner.lives(f"{boot[::-1]} {pid} {started}")
