"""Memory of the machine and of its containers."""

from pathlib import Path

import psutil
import pytest

from ci.plan import memory
from ci.plan.memory import GIB

STAT = "anon 100\ninactive_file {0}\nactive_file {0}\n"


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty control group in place of the real one."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_the_machine_is_the_limit_where_there_is_no_container(cgroup: Path) -> None:
    """There is no limit in the control group."""
    assert memory.total() == psutil.virtual_memory().total
    assert 0 < memory.available() < memory.total()
    assert 0 < memory.reserve() < memory.total() / 10


def test_a_container_can_use_what_its_limit_leaves(cgroup: Path) -> None:
    """Cached files do not count as used, because the kernel drops them on demand."""
    (cgroup / "memory.max").write_text(f"{GIB}\n")
    (cgroup / "memory.current").write_text(f"{GIB // 2}\n")
    (cgroup / "memory.stat").write_text(STAT.format(GIB // 8))
    assert memory.total() == GIB
    assert memory.available() == GIB * 3 // 4


def test_version_1_of_control_groups_is_understood(cgroup: Path) -> None:
    """Its files have other names."""
    (cgroup / "memory").mkdir()
    (cgroup / "memory" / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (cgroup / "memory" / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    (cgroup / "memory" / "memory.stat").write_text(
        f"inactive_file 0\ntotal_inactive_file {GIB // 4}\n"
    )
    assert memory.available() == GIB // 4


def test_a_container_without_a_limit_can_use_the_whole_machine(cgroup: Path) -> None:
    """Its control group contains the word `max`."""
    (cgroup / "memory.max").write_text("max\n")
    assert memory.total() == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("slots", "ranks", "gpus", "share"),
    [
        (1, 1, 0, 64),  # alone
        (16, 2, 0, 4),
        (16, 8, 0, 4),  # the share is enough
        (64, 8, 0, 4),  # a share of 1 would not be: the ranks need 1 + 6 / 2
        (8, 8, 8, 64),  # all GPUs, so nothing runs beside it
        (8, 2, 2, 16),
        (1, 2, 8, 64),  # --jobs 1
        (64, 500, 0, 64),  # never more than there is
    ],
)
def test_a_run_gets_a_share_by_its_ranks_and_gpus(
    slots: int, ranks: int, gpus: int, share: int
) -> None:
    """Of 64 GiB."""
    found = memory.share(64 * GIB, slots=slots, ranks=ranks, gpus=gpus)
    assert found == share * GIB
