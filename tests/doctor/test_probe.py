"""The probe with real processes, real ranks, and a broken torch."""

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

TESTS = ["surroundings", "torch", "GPUs", "matmul", "all-reduce"]


def spawned() -> set[psutil.Process]:
    """The living processes that this one has spawned: ranks, also those of other tests."""
    return {p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())}


def run_probe(
    code: str = "probe.main()", torch: str = "", folder: Path = Path()
) -> tuple[int, list[Any]]:
    """The exit status and facts of a probe; `torch` is the text of a replacement in `folder`."""
    environment = dict(os.environ)
    if torch:
        (folder / "torch.py").write_text(torch)
        environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-P", "-c", f"from ci.doctor import probe; {code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.kernel
def test_the_tests_run_in_order() -> None:
    """As a command; no test fails, and each yields a fact, those of GPUs if there are any."""
    command = [sys.executable, "-P", "-m", "ci.doctor.probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [fact["test"] for fact in facts]
    assert seen == sorted(seen, key=TESTS.index)
    assert {"surroundings", "torch", "all-reduce"} <= set(seen)
    assert not [fact for fact in facts if "fault" in fact]


def test_the_surroundings_are_those_of_this_process() -> None:
    """The user, and the loopback interface."""
    (fact,) = probe.find_surroundings()
    assert fact["uid"] == os.getuid()
    assert "lo" in {name[:2] for name in fact["interfaces"]}


@pytest.mark.kernel
def test_ranks_communicate_and_end() -> None:
    """The all-reduce yields its time, and leaves no process."""
    before = spawned()
    (fact,) = probe.measure_all_reduce()
    assert fact["ranks"] >= 1
    assert fact["seconds"] > 0
    assert spawned() <= before


@pytest.mark.kernel
def test_ranks_that_are_late_are_ended() -> None:
    """torch takes longer than a hundredth of a second to import; no process is left."""
    before = spawned()
    with pytest.raises(TimeoutError, match="not done in 0.01 s"):
        list(probe.measure_all_reduce(timeout_s=0.01))
    assert spawned() <= before


def test_a_torch_that_does_not_load_is_the_last_fact(tmp_path: Path) -> None:
    """Its error is the fault; tests that need torch are skipped."""
    broken = 'raise ImportError("libcudart.so.13: cannot open shared object file")'
    _, facts = run_probe(torch=broken, folder=tmp_path)
    assert [fact["test"] for fact in facts] == TESTS[:2]
    assert facts[-1]["fault"] == "libcudart.so.13: cannot open shared object file"


def test_a_probe_that_hangs_is_ended_by_its_alarm(tmp_path: Path) -> None:
    """The import of torch never ends."""
    stuck = "import time; time.sleep(600)"
    status, facts = run_probe("probe.DEADLINE_S = 1; probe.main()", torch=stuck, folder=tmp_path)
    assert (status, facts[-1]["test"]) == (-signal.SIGALRM, "surroundings")
