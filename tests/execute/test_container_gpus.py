"""GPUs of runs in the lab, as the engine is asked for them."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ci.errors import MachineError
from ci.execute import executor
from ci.execute.container import ContainerExecutor
from ci.execute.events import Execution
from ci.lab.containers import GIB
from ci.lab.image import Image
from ci.plan import planner
from ci.plan.gpus import Gpu
from tests.conftest import DOCKER, HEADER, Read, executions
from tests.execute.conftest import execute
from tests.machine_parts import containers_named


def gpus(*ids: int) -> tuple[Gpu, ...]:
    """GPUs of the machine that tests/engine/nvidia-container-runtime-hook simulates."""
    return tuple(Gpu(str(i), f"GPU-{i}", "A GPU") for i in ids)


def execute_on(
    read: Read, tmp_path: Path, where: ContainerExecutor, *granted: Gpu, most: int = 8
) -> Execution:
    """The execution of a lesson that uses up to `most` GPUs in the lab, on the granted GPUs."""
    lesson = read(header=HEADER.replace("max: 1", f"max: {most}"))
    runs = planner.runs([lesson], [], granted)
    (execution,) = executions(runs, tmp_path / "runs", where, gpus=granted)
    return execution


def last_record(hook_log: Path) -> dict[str, Any]:
    """The last record of the hook.

    If the machine cannot lock enough memory, an earlier record belongs to a start that failed.
    """
    record: dict[str, Any] = json.loads(hook_log.read_text().splitlines()[-1])
    return record


@pytest.mark.parametrize(
    ("granted", "most", "given"),
    [
        (gpus(0, 1, 2, 3), 8, "GPU-0,GPU-1,GPU-2,GPU-3"),
        (gpus(0, 1), 8, "GPU-0,GPU-1"),
        (gpus(0, 2), 8, "GPU-0,GPU-2"),
        (gpus(0, 1, 2, 3), 1, "GPU-0"),
    ],
    ids=["all", "2", "device=0,2", "a lesson of one"],
)
def test_a_container_gets_the_gpus_of_its_lease(
    the_lab: ContainerExecutor,
    read: Read,
    tmp_path: Path,
    hook_log: Path,
    granted: tuple[Gpu, ...],
    most: int,
    given: str,
) -> None:
    """And no others. The message says that torch is a CPU build."""
    execution = execute_on(read, tmp_path, the_lab, *granted, most=most)
    assert execution.machine_fault
    assert "but torch 2.13.0+cpu is a CPU build" in execution.reason
    assert last_record(hook_log)["devices"] == given


def test_a_lesson_without_a_lease_sees_no_gpu(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, hook_log: Path
) -> None:
    """NVIDIA's hook is not even called."""
    execute(read(), tmp_path / "runs", the_lab)
    assert hook_log.read_text() == ""


def test_a_container_with_gpus_is_isolated_too(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, hook_log: Path
) -> None:
    """According to the configuration that the engine passes to the hook."""
    execute_on(read, tmp_path, the_lab, *gpus(0, 1))
    config = last_record(hook_log)["config"]
    process = config["process"]
    assert config["root"]["readonly"]
    assert process["noNewPrivileges"]
    assert not any(process["capabilities"].values() if process.get("capabilities") else [])
    assert process["user"]["uid"] in ([os.getuid()] if os.getuid() else range(1000, 2000))
    assert config["linux"]["resources"]["pids"]["limit"] == 512 + 128
    assert "NCCL_CUMEM_HOST_ENABLE=0" in process["env"]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in process["env"]
    assert config["linux"]["resources"]["memory"]["limit"] == 2 * GIB
    mounted = [m["destination"] for m in config["mounts"] if m["type"] == "bind"]
    assert {"/course/ci/lesson", "/course/ci/worker"} <= {*mounted}
    assert not any("judge" in path or path == "/course/ci" for path in mounted)
    assert [
        m["destination"]
        for m in config["mounts"]
        if m["destination"].startswith(("/course", "/attempt")) and "ro" not in m["options"]
    ] == ["/attempt"]


def test_a_gpu_that_the_engine_does_not_know_is_the_machines_fault(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, hook_log: Path
) -> None:
    """The message of the hook is one line, and no container is left."""
    execution = execute_on(read, tmp_path, the_lab, *gpus(9))
    assert execution.machine_fault
    assert re.match(r"NVIDIA's hook: .*GPU-9: unknown device", execution.reason)
    assert containers_named("01_small") == []


def test_gpus_need_the_image_with_cuda(lab_image: Image) -> None:
    """An image with the CPU build does not replace it."""
    with pytest.raises(MachineError, match="no cuda image of docker/ as it is now: invoke"):
        executor.choose("lab", gpus(0), DOCKER)
