"""How much memory is left."""

from pathlib import Path

import psutil
import pytest

from ci.plan import memory
from ci.plan.memory import GIB

KEPT = "anon 100\ninactive_file {0}\nactive_file {0}\n"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of the test's own."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_the_machine_is_the_limit_where_there_is_no_container(group: Path) -> None:
    """No file says otherwise."""
    assert memory.total() == psutil.virtual_memory().total
    assert 0 < memory.left() < memory.total()
    assert 0 < memory.reserve() < memory.total() / 10


def test_a_container_has_what_its_limit_leaves(group: Path) -> None:
    """What is only kept of files can be had at once."""
    (group / "memory.max").write_text(f"{GIB}\n")
    (group / "memory.current").write_text(f"{GIB // 2}\n")
    (group / "memory.stat").write_text(KEPT.format(GIB // 8))
    assert memory.total() == GIB
    assert memory.left() == GIB * 3 // 4


def test_a_container_of_the_old_kind_too(group: Path) -> None:
    """Version 1 of control groups has other names."""
    (group / "memory").mkdir()
    (group / "memory" / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (group / "memory" / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    (group / "memory" / "memory.stat").write_text(
        f"inactive_file 0\ntotal_inactive_file {GIB // 4}\n"
    )
    assert memory.left() == GIB // 4


def test_a_container_without_a_limit_has_the_machine(group: Path) -> None:
    """Its file says `max`."""
    (group / "memory.max").write_text("max\n")
    assert memory.total() == psutil.virtual_memory().total
