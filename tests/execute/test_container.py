"""The lab as an executor: its containers, what they see, and what their ends mean."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from ci.errors import MachineError
from ci.execute import engine, executor, server_client
from ci.execute.container import ContainerExecutor
from ci.execute.events import CellStarted, Event, Execution, Finished
from ci.execute.local import LocalExecutor
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.plan import planner
from tests.conftest import DOCKER, GRADIENT, HEADER, Read, executions
from tests.execute.conftest import execute, printed
from tests.machine_parts import containers_named


def is_last_cell(event: Event) -> bool:
    """Whether the last cell of a run starts."""
    return isinstance(event, CellStarted) and event.cell == event.cells - 1


def test_a_sweep_shares_a_container(the_lab: ContainerExecutor, read: Read, tmp_path: Path) -> None:
    """Its runs see the same first process, and have separate attempts."""
    cells = "# %%\nprint('started', open('/proc/1/stat').read().split()[21])\n" + GRADIENT
    first, second = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert printed(first) == printed(second) != []
    assert first.attempt != second.attempt


def test_a_run_leaves_the_next_one_in_its_container_alone(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """It ends what it has started while the next one begins."""
    sizes = ",".join(map(str, range(2, 42)))
    ends = execute(read("# %%\nsize\n"), tmp_path / "runs", the_lab, f"size={sizes}")
    assert [end.reason for end in ends] == [""] * 40


def test_a_sweep_uses_one_container_per_slot(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """Its runs share it."""
    lesson = read("# %%\nimport os, time; time.sleep(1); print(os.readlink('/proc/self/ns/mnt'))\n")
    runs = planner.runs([lesson], ["size=2,3,4,5"], [], timeout_s=90)
    printed = set()
    for end in executions(runs, tmp_path / "runs", the_lab, slots=2):
        assert end.notebook, end.reason
        *_, cell = nbformat.read(end.notebook, as_version=4).cells
        printed.add(cell.outputs[0].text)
    assert len(printed) == 2


def test_a_killed_container_fails_only_its_run(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The next run gets a new container."""
    lesson = read("# %%\nimport time; time.sleep(600 if size == 2 else 0)\n")
    runs = planner.runs([lesson], ["size=2,3"], [], timeout_s=90)
    seen: list[Execution] = []
    for event in engine.execute(runs, tmp_path / "runs", the_lab):
        if is_last_cell(event) and event.run is runs[0]:
            with connect() as client:
                (container,) = client.containers.list(filters={"name": "01_small"})
                container.kill()
        seen += [event.execution] if isinstance(event, Finished) else []
    assert [execution.end for execution in seen] == ["failed", "completed"]
    assert seen[0].reason.startswith("the container was killed: by `docker kill`")
    assert seen[0].machine_fault


def test_a_hanging_server_ends_with_its_container(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused container does not answer; the run ends, and no container is left."""
    for name in ("GRACE_S", "END_S"):
        monkeypatch.setattr(server_client, name, 1.0)
    lesson = read("# %%\nimport time; time.sleep(600)\n")
    runs = planner.runs([lesson], [], [], timeout_s=5)
    for event in engine.execute(runs, tmp_path / "runs", the_lab):
        if is_last_cell(event):
            with connect() as client:
                client.containers.list(filters={"name": "01_small"})[0].pause()
    assert isinstance(event, Finished)
    assert event.execution.reason == "it hangs, and does not notice its deadline"
    assert containers_named("01_small") == []


def test_a_lesson_can_neither_stop_nor_end_its_fork_server(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The server is the first process of its container, which ignores signals from inside."""
    cells = (
        "# %%\nimport os, signal, time\n"
        "for number in signal.valid_signals(): os.kill(1, number)\n"
        "time.sleep(1)\n"
    )
    ends = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert [end.reason for end in ends] == ["", ""]


def test_a_lesson_that_stops_its_run_process_ends_after_its_deadline(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine ends it, and the next run uses the same container."""
    monkeypatch.setattr(server_client, "GRACE_S", 1.0)
    cells = "# %%\nimport os\nif size == 2: os.kill(os.getppid(), 19); input()\n"
    runs = planner.runs([read(cells)], ["size=2,3"], [], timeout_s=10)
    ends = executions(runs, tmp_path / "runs", the_lab)
    assert [end.reason for end in ends] == ["it hangs, and does not notice its deadline", ""]


def test_a_lesson_that_kills_its_run_process_fails_alone(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The server ends the kernel, and the next run uses the same container."""
    cells = "# %%\nimport os\nif size == 2: os.kill(os.getppid(), 9); input()\n"
    ends = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert [end.reason for end in ends] == ["its process was killed by SIGKILL", ""]


def test_auto_selects_the_lab_if_its_image_is_up_to_date(lab_image: Image) -> None:
    """The facts of the executor name the image."""
    where, remarks = executor.choose("auto", [], DOCKER)
    assert isinstance(where, ContainerExecutor)
    assert where.provenance["image"].startswith("pytorch-course:cpu-")
    assert remarks == []


def test_auto_selects_this_machine_if_the_image_is_stale(lab_image: Image, tmp_path: Path) -> None:
    """A remark has the reason; `--on lab` is strict."""
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("wheels"))
    (folder / "cpu.txt").write_text((folder / "cpu.txt").read_text() + "# changed\n")
    where, remarks = executor.choose("auto", [], folder)
    assert isinstance(where, LocalExecutor)
    assert "no cpu image of docker/ as it is now: invoke build-lab" in remarks[0]
    with pytest.raises(MachineError, match="invoke build-lab --variant cpu"):
        executor.choose("lab", [], folder)


def test_a_lesson_runs_without_its_prerequisites(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """A container shows no other lesson."""
    read(name="01_small")
    header = HEADER.replace("  lesson:\n", "  lesson:\n#     prerequisites: [small]\n", 1)
    (end,) = execute(read(header=header, name="02_next"), tmp_path / "runs", the_lab)
    assert (end.end, end.reason) == ("completed", "")


def test_links_to_the_expected_values_are_not_mounted(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """Dangling and circular links do no harm."""
    lesson = read("# %%\nimport os; print(os.listdir('.'))\n")
    (tmp_path / "lessons/answers").symlink_to("expected")
    (tmp_path / "lessons/nowhere").symlink_to("no such file")
    (tmp_path / "lessons/circle").symlink_to("circle")
    (tmp_path / "lessons/data").mkdir()
    (end,) = execute(lesson, tmp_path / "runs", the_lab)
    assert sorted(eval(printed(end)[0])) == ["01_small.py", "data"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can read what a student can't")
def test_a_lesson_that_only_root_can_read_is_the_machines_fault(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The message has the remedy."""
    lesson = read()
    lesson.path.chmod(0o600)
    (execution,) = execute(lesson, tmp_path / "runs", the_lab)
    assert execution.machine_fault
    assert re.match(r"only root can read .*01_small.py.*chmod -R o\+rX", execution.reason)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives attempts away")
def test_a_strict_umask_does_no_harm(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The student owns the attempt, and sees no folder above it."""
    lesson = read()
    before = os.umask(0o077)
    try:
        (end,) = execute(lesson, tmp_path / "runs", the_lab)
    finally:
        os.umask(before)
    assert end.end == "completed"


def test_a_container_that_ends_before_its_run_is_no_fault_of_the_pipeline(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left no folder to take files from."""
    monkeypatch.setattr(server_client, "STARTUP_S", 0.0)
    (end,) = execute(read(), tmp_path / "runs", the_lab)
    assert end.reason == "it hangs, and does not notice its deadline"
    assert [*end.attempt.iterdir()] == []
