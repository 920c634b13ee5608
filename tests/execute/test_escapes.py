"""What a lesson in the lab tries in vain, and what it observes of itself."""

import os
import socket
from pathlib import Path
from socket import AF_INET
from textwrap import indent

import psutil
import pytest

from ci.execute.container import ContainerExecutor
from ci.lab.containers import GIB
from ci.lab.image import Image
from ci.lesson import reader
from tests.conftest import Read
from tests.execute.conftest import execute, printed
from tests.machine_parts import containers_named

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
    "write many files": (
        {"ENOSPC"},
        "import os; os.mkdir('/tmp/many')\n"
        "for number in range(110_000): os.mknod(f'/tmp/many/{{number}}')",
    ),
    "use io_uring": ({"EPERM"}, SYSTEM_CALL.format(call="syscall(425, 1, 0)")),
    "ask the kernel to encrypt": ({"EPERM"}, "import socket; socket.socket(38, 5)"),
    "start a child in a namespace": (
        {"EPERM"},
        SYSTEM_CALL.format(call="syscall(56, 0x10000011, 0, 0, 0, 0)"),
    ),
    "take a file of its run process": (
        {"EPERM", "ENOSYS"},
        SYSTEM_CALL.format(call="syscall(438, os.pidfd_open(os.getppid()), 1, 0)"),
    ),
    "change a setting of the kernel": (WRITES, "open('/proc/sys/kernel/core_pattern', 'w')"),
    "restart the machine": (WRITES | {"ENOENT"}, "open('/proc/sysrq-trigger', 'w')"),
    "raise its limit of memory": (
        WRITES,
        "from glob import glob; folder = '/sys/fs/cgroup/'\n"
        "(*_, limit) = glob(folder + 'memory.max') + glob(folder + 'memory/*.limit_in_bytes')\n"
        "open(limit, 'w')",
    ),
    "go before other processes": (
        {"EPERM"},
        "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    ),
    "open a disk": (
        {"EPERM"},
        "import os; os.mknod('/tmp/disk', 0o060600, os.makedev(8, 0))",
    ),
    "leave its attempt by a link": (
        {"ENOENT"},
        "import os; os.symlink('{folder}', '/attempt/out'); os.listdir('/attempt/out')",
    ),
    "replace its attempt": (WRITES | {"EBUSY"}, "import os; os.rename('/attempt', '/elsewhere')"),
    "ask the engine": ({"ENOENT"}, "open('/var/run/docker.sock')"),
}
OF_A_STUDENT = {
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
    names = ("CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters")
    assert [student[name] for name in names] == ["0" * 16, "1", "2", "2"]


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
