"""The executors: how the lab isolates a lesson, and what a lesson gets."""

import json
import os
import re
import shutil
import socket
from pathlib import Path
from socket import AF_INET
from textwrap import indent
from typing import Any

import nbformat
import psutil
import pytest

from ci.errors import MachineError
from ci.execute import engine, executor, server_client
from ci.execute.container import ContainerExecutor
from ci.execute.events import CellStarted, Event, Execution, Finished
from ci.execute.local import LocalExecutor
from ci.lab.containers import GIB
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from ci.plan import attempts, planner
from ci.plan.gpus import Gpu
from tests.conftest import DOCKER, GRADIENT, HEADER, Read, containers_named, executions

SYSTEM_CALL = (
    "import ctypes, os\n"
    "if ctypes.CDLL(None, use_errno=True).{call} == -1:\n"
    "    raise OSError(ctypes.get_errno(), 'refused')"
)
WRITES = {"EROFS", "EACCES"}  # read-only, or somebody else's
# What a lesson may try, and the errors that it may get. {port}, {address}, {pid} and {folder} are
# this process's: a listening socket, an address of the machine, its id, the course's folder.
ESCAPES = {
    "reach this machine": (
        {"ECONNREFUSED"},
        "import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
    ),
    "reach the network": (
        {"ENETUNREACH"},
        "import socket; socket.create_connection(('{address}', {port}), 5)",
    ),
    "read the expected values": ({"ENOENT"}, "open('expected/01_small.py')"),
    "read another lesson": ({"ENOENT"}, "open('02_other.py')"),
    "read the host": ({"ENOENT"}, "import os; os.listdir('{folder}')"),
    "write the lesson": (WRITES, "open('01_small.py', 'a')"),
    "write what it imports": (WRITES, "open('data/table.csv', 'w')"),
    "write the pipeline": (WRITES, "open('/course/ci/worker/kernel.py', 'a')"),
    "write the system": (WRITES, "open('/etc/motd', 'w')"),
    "write another lesson's attempt": ({"ENOENT"}, "open('{folder}/runs/02_other/x', 'w')"),
    "fill the memory with files": (
        {"ENOSPC"},
        "import os; file = os.open('/tmp/big', os.O_CREAT | os.O_RDWR)\n"
        "os.posix_fallocate(file, 0, 2**31)",
    ),
    "mount": ({"EPERM"}, SYSTEM_CALL.format(call="mount(b'x', b'/tmp', b'tmpfs', 0, 0)")),
    "leave by a namespace": ({"EPERM"}, SYSTEM_CALL.format(call="unshare(0x10000000)")),
    "trace its run process": ({"EPERM"}, SYSTEM_CALL.format(call="ptrace(16, os.getppid(), 0, 0)")),
    "speak for its run process": (
        {"EACCES"},
        "import os; open(f'/proc/{{os.getppid()}}/fd/1', 'w')",
    ),
    "speak for the first process": ({"EACCES"}, "open('/proc/1/fd/1', 'w')"),
    "see the host's processes": ({"ESRCH"}, "import os; os.kill({pid}, 0)"),
    "write a large file": (
        {"EFBIG"},
        "import os; file = open('/tmp/large', 'wb'); os.pwrite(file.fileno(), b'x', 2**31)",
    ),
    "ask the engine": ({"ENOENT"}, "open('/var/run/docker.sock')"),
}
OF_A_STUDENT = {
    "write beside its attempt": ({"EACCES"}, "open('/attempts/x', 'w')"),
    "become root": ({"EPERM"}, "import os; os.setuid(0)"),
}
LAST = {
    "fork without end": (
        {"EAGAIN"},
        "import os, time\n"
        "for _ in range(10_000):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(60)\n"
        "        os._exit(0)",
    ),
}
TRY = """\
# %%
try:
{code}
except OSError as error:
    import errno
    print({name!r}, errno.errorcode.get(error.errno), sep=": ")
else:
    print({name!r}, "done", sep=": ")
"""
OBSERVE = """\
# %%
print("user", os.getuid(), sep=": ")
print("variables", *os.environ, sep=": ")
for line in open("/proc/self/status"):
    name, _, value = line.strip().partition(":\\t")
    print(name, value, sep=": ")
"""


def execute(
    lesson: Lesson, folder: Path, where: ContainerExecutor, *settings: str
) -> list[Execution]:
    """The executions of the runs of `lesson` in the lab."""
    runs = planner.runs([lesson], settings, [], timeout_s=90)
    return executions(runs, folder, where)


def is_last_cell(event: Event) -> bool:
    """Whether the last cell of a run starts."""
    return isinstance(event, CellStarted) and event.cell == event.cells - 1


@pytest.fixture(scope="module")
def the_lab(lab_image: Image) -> ContainerExecutor:
    """The lab of this project, with 2 GiB of memory per container."""
    return ContainerExecutor(lab_image, memory=2 * GIB)


def try_escapes(image: Image, folder: Path, *, as_root: bool) -> dict[str, str]:
    """The result of each attempt to escape, from one lesson that makes all of them.

    Also what the lesson observes of itself, and the owners of its files afterwards.
    """
    for name in ("expected", "data"):
        (folder / "lessons" / name).mkdir(parents=True)
    (folder / "runs/02_other").mkdir(parents=True)
    for name in ("expected/01_small.py", "02_other.py", "data/table.csv"):
        (folder / "lessons" / name).write_text("# %%\n")
    every = [a for of_one in psutil.net_if_addrs().values() for a in of_one]
    addresses = [a.address for a in every if a.family == AF_INET]
    address = next((a for a in addresses if not a.startswith("127.")), "127.0.0.2")
    escapes = {**ESCAPES, **({} if as_root else OF_A_STUDENT), **LAST}
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        codes = {
            name: code.format(port=port, address=address, pid=os.getpid(), folder=folder)
            for name, (_, code) in escapes.items()
        }
        cells = [TRY.format(name=name, code=indent(code, "    ")) for name, code in codes.items()]
        path = folder / "lessons/01_small.py"
        cells.insert(-len(LAST), OBSERVE)
        path.write_text("# %% [markdown]\n# # An escape\n# %%\nimport os\n" + "".join(cells))
        where = ContainerExecutor(image, memory=8 * GIB, as_root=as_root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("NCCL_DEBUG", "INFO")
            end = execute(reader.read(path), folder / "runs", where)[0]
    assert end.end == "completed", end.reason
    owners = sorted({found.stat().st_uid for found in end.attempt.rglob("*")})
    observed = dict(line.split(": ", 1) for line in printed(end))
    return {**observed, "owners": str(owners)}


def printed(end: Event) -> list[str]:
    """The lines that a lesson printed."""
    assert end.notebook
    cells = nbformat.read(end.notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if "text" in output).splitlines()


@pytest.fixture(scope="module")
def student(lab_image: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of the escapes as a normal user."""
    return try_escapes(lab_image, tmp_path_factory.mktemp("course"), as_root=False)


@pytest.fixture(scope="module")
def root(lab_image: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of the escapes with --as-root."""
    return try_escapes(lab_image, tmp_path_factory.mktemp("course"), as_root=True)


@pytest.mark.parametrize("name", [*ESCAPES, *OF_A_STUDENT, *LAST])
def test_a_lesson_cannot_escape_from_the_lab(student: dict[str, str], name: str) -> None:
    """Each attempt gets the error for a missing file or permission."""
    assert student[name] in {**ESCAPES, **OF_A_STUDENT, **LAST}[name][0]


@pytest.mark.parametrize("name", [*ESCAPES, *LAST])
def test_a_lesson_cannot_escape_as_root(root: dict[str, str], name: str) -> None:
    """Root in the lab has no additional capabilities."""
    assert root[name] in {**ESCAPES, **LAST}[name][0]


def test_no_container_is_left_after_escapes(student: dict[str, str]) -> None:
    """Not even that of the lesson that forked without end."""
    assert containers_named("01_small") == []


def test_a_lesson_has_no_capability_and_can_gain_none(student: dict[str, str]) -> None:
    """Its bounding set is empty, it cannot gain privileges, and system calls are filtered."""
    names = ("CapBnd", "NoNewPrivs", "Seccomp")
    assert [student[name] for name in names] == ["0" * 16, "1", "2"]


def test_a_lesson_gets_few_of_the_callers_variables(student: dict[str, str]) -> None:
    """Only those that tune communication, and no secrets."""
    assert "NCCL_DEBUG" in student["variables"].split(": ")
    assert "SECRET" not in student["variables"]


@pytest.mark.skipif(os.getuid() != 0, reason="the caller is root in this test")
def test_a_lesson_is_not_root_without_as_root(
    student: dict[str, str], root: dict[str, str]
) -> None:
    """A lesson of root is user 1000; afterwards all files belong to root."""
    assert (student["user"], student["owners"]) == ("1000", "[0]")
    assert (root["user"], root["owners"]) == ("0", "[0]")


def test_a_sweep_shares_a_container(the_lab: ContainerExecutor, read: Read, tmp_path: Path) -> None:
    """Its runs see the same first process, and have separate attempts."""
    cells = "# %%\nprint('started', open('/proc/1/stat').read().split()[21])\n" + GRADIENT
    first, second = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert printed(first) == printed(second) != []
    assert first.attempt != second.attempt


HOG = "# %%\nhog = []\nwhile True:\n    hog.append(bytearray(2**26))\n"


def test_a_run_finds_no_file_of_an_earlier_run(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """Its result would depend on the order of the runs."""
    cells = """\
# %%
from pathlib import Path
for path in (Path("/tmp/mine"), Path("/dev/shm/mine")):
    print(path.exists())
    path.write_text("mine")
"""
    ends = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert [printed(end) for end in ends] == [["False", "False"]] * 2


def test_a_lesson_that_uses_too_much_memory_fails(
    lab_image: Image, read: Read, tmp_path: Path
) -> None:
    """The reason is "out of memory", with the cell; the next run continues."""
    where = ContainerExecutor(lab_image, memory=GIB)
    cells = HOG.replace("while True", "while size == 2")
    first, second = execute(read(cells), tmp_path / "runs", where, "size=2,3")
    assert first.end == "failed"
    assert first.reason.startswith("out of memory, limit 1.0 GiB")
    assert first.cell == "cell-4"
    assert second.end == "completed"


def test_a_lesson_can_neither_stop_nor_kill_its_fork_server(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The server is the first process of its container, which ignores signals from inside."""
    cells = "# %%\nimport os\nfor number in (9, 19): os.kill(1, number)\n"
    assert [end.end for end in execute(read(cells), tmp_path / "runs", the_lab)] == ["completed"]


def test_a_lesson_that_kills_its_run_process_fails_alone(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """The server ends the kernel, and the next run uses the same container."""
    cells = "# %%\nimport os\nif size == 2: os.kill(os.getppid(), 9); input()\n"
    ends = execute(read(cells), tmp_path / "runs", the_lab, "size=2,3")
    assert [end.reason for end in ends] == ["its process was killed by SIGKILL", ""]


PEEK = """\
# %%
import os
for name in ("mem", "environ", "fd/0"):
    try:
        open(f"/proc/{os.getppid()}/{name}").close()
    except PermissionError:
        print(name)
"""


def test_a_lesson_cannot_inspect_the_parent_of_its_kernel(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """It is the run process, which tells the pipeline how the run ended."""
    (found,) = execute(read(PEEK), tmp_path / "runs", the_lab)
    assert printed(found) == ["mem", "environ", "fd/0"]


PLANTED = """\
# %%
import glob, os
(attempt,) = glob.glob("/attempts/*/.*")
os.symlink("{victim}", attempt + "/.checks.json." + attempt.rpartition("-")[2])
os.symlink("{victim}", attempt + "/executed.ipynb")
os.symlink("{victim}", attempt + "/executed.partial")
os.mkdir(attempt + "/checks.json")
os.mkfifo(attempt + "/junit.xml")
"""


def test_files_that_a_lesson_plants_in_its_attempt_are_removed(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """No planted link is followed, and the caller owns the files of the run."""
    victim = tmp_path / "victim"
    victim.write_text("the host's")
    (end,) = execute(read(PLANTED.format(victim=victim)), tmp_path / "runs", the_lab)
    assert end.end == "completed"
    assert sorted(path.name for path in end.attempt.iterdir()) == ["executed.ipynb", "log.txt"]
    owners = {(path.stat().st_uid, path.is_symlink()) for path in end.attempt.iterdir()}
    assert owners == {(os.getuid(), False)}
    assert victim.read_text() == "the host's"


def test_a_run_cannot_change_an_earlier_attempt(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """A complete attempt stays as it was judged."""
    cells = (
        "# %%\nimport glob\n"
        "if size == 3:\n"
        "    open(glob.glob('/attempts/*/[!.]*/executed.ipynb')[0], 'w').write('forged')\n"
    )
    lesson, folder = read(cells), tmp_path / "runs"
    for size, status in (("2", "completed"), ("3", "failed")):
        (end,) = execute(lesson, folder, the_lab, f"size={size}")
        attempts.complete(end.attempt)
        assert end.end == status


def test_a_sweep_uses_one_container_per_slot(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """If the caller is root, each container has a separate user; its runs share it."""
    who = "os.readlink('/proc/self/ns/mnt'), os.getuid()"
    lesson = read(f"# %%\nimport os, time; time.sleep(1); print({who})\n")
    runs = planner.runs([lesson], ["size=2,3,4,5"], [], timeout_s=90)
    printed = set()
    for end in executions(runs, tmp_path / "runs", the_lab, slots=2):
        assert end.notebook, end.reason
        *_, cell = nbformat.read(end.notebook, as_version=4).cells
        printed.add(cell.outputs[0].text)
    assert len({text.split()[0] for text in printed}) == 2
    assert len({text.split()[1] for text in printed}) == (1 if os.getuid() else 2)


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
    assert seen[0].reason.startswith("its fork server was gone, exit status 137")


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
    assert config["linux"]["resources"]["memory"]["limit"] == 2 * GIB
    mounted = [m["destination"] for m in config["mounts"] if m["type"] == "bind"]
    assert {"/course/ci/lesson", "/course/ci/worker"} <= {*mounted}
    assert not any("judge" in path or path == "/course/ci" for path in mounted)
    assert [
        m["destination"]
        for m in config["mounts"]
        if m["destination"].startswith(("/course", "/attempts")) and "ro" not in m["options"]
    ] == ["/attempts"]


def test_a_gpu_that_the_engine_does_not_know_is_the_machines_fault(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, hook_log: Path
) -> None:
    """The message of the hook is one line, and no container is left."""
    execution = execute_on(read, tmp_path, the_lab, *gpus(9))
    assert execution.machine_fault
    assert re.match(r"NVIDIA's hook: .*GPU-9: unknown device", execution.reason)
    assert containers_named("01_small") == []


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


def test_gpus_need_the_image_with_cuda(lab_image: Image) -> None:
    """An image with the CPU build does not replace it."""
    with pytest.raises(MachineError, match="no cuda image of docker/ as it is now: invoke"):
        executor.choose("lab", gpus(0), DOCKER)


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
    """The student owns the attempt and can enter the folders above it."""
    lesson = read()
    before = os.umask(0o077)
    try:
        (end,) = execute(lesson, tmp_path / "runs", the_lab)
    finally:
        os.umask(before)
    assert end.end == "completed"
