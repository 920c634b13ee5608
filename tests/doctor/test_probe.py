"""What a lesson would find, tried out for real: processes, ranks, a torch that is broken."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from ci.doctor import probe

LOOKS = ["surroundings", "torch", "GPUs", "matmul", "all-reduce"]


def spawned() -> set[psutil.Process]:
    """Processes that this one has spawned and that still live: ranks, and those of other tests."""
    return {p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())}


def look(
    code: str = "probe.main()", torch: str = "", folder: Path = Path()
) -> tuple[int, list[Any]]:
    """Exit status and facts of a probe; with a package `torch` of this text, in `folder`."""
    environment = dict(os.environ)
    if torch:
        (folder / "torch.py").write_text(torch)
        environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-P", "-c", f"from ci.doctor import probe; {code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.kernel
def test_the_looks_are_taken_in_order() -> None:
    """As a command, each finds something and none a fault; GPUs are looked at where there are."""
    command = [sys.executable, "-P", "-m", "ci.doctor.probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [fact["test"] for fact in facts]
    assert seen == sorted(seen, key=LOOKS.index)
    assert {"surroundings", "torch", "all-reduce"} <= set(seen)
    assert not [fact for fact in facts if "fault" in fact]


def test_the_surroundings_are_those_of_this_process() -> None:
    """Its user, and the loopback interface."""
    (fact,) = probe.find_surroundings()
    assert fact["uid"] == os.getuid()
    assert "lo" in {name[:2] for name in fact["interfaces"]}


@pytest.mark.kernel
def test_ranks_add_up_and_are_gone() -> None:
    """An all-reduce gives its time, and leaves no process."""
    before = spawned()
    (fact,) = probe.measure_all_reduce()
    assert fact["ranks"] >= 1
    assert fact["seconds"] > 0
    assert spawned() <= before


@pytest.mark.kernel
def test_ranks_that_are_late_are_ended() -> None:
    """Nobody imports torch in a hundredth of a second: a TimeoutError, and no process is left."""
    before = spawned()
    with pytest.raises(TimeoutError, match="not done in 0.01 s"):
        list(probe.measure_all_reduce(timeout_s=0.01))
    assert spawned() <= before


def test_a_torch_that_does_not_load_is_the_last_thing_found(tmp_path: Path) -> None:
    """Its error is the fault; what needs torch is not tried."""
    broken = 'raise ImportError("libcudart.so.13: cannot open shared object file")'
    _, facts = look(torch=broken, folder=tmp_path)
    assert [fact["test"] for fact in facts] == LOOKS[:2]
    assert facts[-1]["fault"] == "libcudart.so.13: cannot open shared object file"


def test_a_probe_that_hangs_is_ended_by_its_alarm(tmp_path: Path) -> None:
    """Here at a torch that never loads."""
    stuck = "import time; time.sleep(600)"
    status, facts = look("probe.DEADLINE_S = 1; probe.main()", torch=stuck, folder=tmp_path)
    assert (status, facts[-1]["test"]) == (-signal.SIGALRM, "surroundings")
