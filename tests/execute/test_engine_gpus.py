"""The engine shares GPUs and memory between runs and invocations."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from ci.execute import engine, leases
from ci.execute.events import Finished, Started, Waiting
from ci.execute.local import LocalExecutor
from ci.plan import memory, planner
from ci.plan.gpus import Gpu
from tests.conftest import HEADER, Read

pytestmark = pytest.mark.kernel


class GpuExecutor(LocalExecutor):
    """This machine, pretending that its torch can use GPUs."""

    provenance: Mapping[str, str] = {"cuda": "13.0"}


GPUS = [Gpu(str(i), f"GPU-{i}", "A GPU") for i in range(3)]
LOG_LEASE = """\
# %%
import os, time
began = time.time()
time.sleep(0.3)
with open({path!r}, "a") as file:
    print(os.environ["CUDA_VISIBLE_DEVICES"], began, time.time(), file=file)
"""
INVOCATION = """\
from pathlib import Path
from ci.execute import engine, leases
from ci.lesson import reader
from ci.plan import planner
from tests.execute.test_engine_gpus import GPUS, GpuExecutor
leases.FOLDER = Path({folder!r})
runs = planner.runs([reader.read(Path({lesson!r}))], ["size=2,3,4,5,6"], GPUS)
list(engine.execute(runs, Path({folder!r}) / "runs", GpuExecutor(), slots=3, gpus=GPUS))
"""


def overlaps(path: Path) -> list[tuple[str, str]]:
    """Pairs of runs that used a GPU at the same time."""
    rows = [line.split() for line in path.read_text().splitlines()]
    spans = [(gpus, float(began), float(ended)) for gpus, began, ended in rows]
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(spans, 2)
        if {*one[0].split(",")} & {*other[0].split(",")}
        and max(one[1], other[1]) < min(one[2], other[2])
    ]


def test_two_invocations_never_share_a_gpu(read: Read, tmp_path: Path) -> None:
    """On three GPUs, one has runs with one GPU and the other runs with two; all of them execute."""
    log, code = tmp_path / "log", []
    for name, most in (("01_small", 1), ("02_large", 2)):
        header = HEADER.replace("max: 1}", f"max: {most}}}", 1)
        lesson = read(LOG_LEASE.format(path=str(log)), header=header, name=name)
        code.append(INVOCATION.format(folder=str(tmp_path), lesson=str(lesson.path)))
    both = [subprocess.Popen([sys.executable, "-c", text]) for text in code]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(log.read_text().splitlines()) == 10
    assert overlaps(log) == []
    assert {len(line.split()[0].split(",")) for line in log.read_text().splitlines()} == {1, 2}


def test_runs_with_one_gpu_execute_in_parallel(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own slot and GPU."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    runs = planner.runs([read()], ["size=2,3,4"], GPUS)
    events = list(engine.execute(runs, tmp_path / "runs", GpuExecutor(), slots=3, gpus=GPUS))
    started = [event for event in events if isinstance(event, Started)]
    assert {event.slot for event in started} == {0, 1, 2}
    assert {event.gpus for event in started} == {(gpu,) for gpu in GPUS}


def test_a_run_that_waits_for_another_invocation_is_reported(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts when the other invocation releases its GPU."""
    monkeypatch.setattr(leases, "FOLDER", tmp_path / "leases")
    lease = leases.GpuPool(GPUS[:1]).lease(GPUS[:1])
    assert lease
    runs = planner.runs([read()], [], GPUS[:1])
    kinds = []
    for event in engine.execute(runs, tmp_path / "runs", GpuExecutor(), gpus=GPUS[:1]):
        kinds.append(type(event))
        lease.close()
    assert kinds[0] is Waiting
    assert kinds[-1] is Finished


HUNGRY = "# %%\nimport time\nx = b'1' * (2**31 if size == 4 else 1)\ntime.sleep(5)\n"


def used_by_children() -> int:
    """The memory of the processes below this one, in bytes."""
    used = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            used += process.memory_full_info().pss
    return used


def test_the_run_that_uses_the_most_memory_is_ended(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1.5 GiB available, a run that allocates 2 GiB ends, and the other one completes."""
    most = used_by_children() + 3 * memory.GIB // 2
    monkeypatch.setattr(memory, "available", lambda: most - used_by_children())
    runs = planner.runs([read(HUNGRY)], ["size=2,4"], [], timeout_s=60)
    events = engine.execute(runs, tmp_path / "runs", LocalExecutor(), slots=2, reserve=0)
    ends = [event.execution for event in events if isinstance(event, Finished)]
    ended = {end.run.label: end for end in ends}
    assert ended["size=2"].end == "completed"
    assert ended["size=4"].end == "failed"
    assert ended["size=4"].reason.startswith("out of memory: it used ")
