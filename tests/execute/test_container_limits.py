"""Limits of a run in the lab: what takes too much fails by its own name, and alone."""

import os
from pathlib import Path

import pytest

from ci.execute.container import ContainerExecutor
from ci.lab.containers import GIB
from ci.lab.image import Image
from ci.plan import attempts, planner
from tests.conftest import Read, executions
from tests.execute.conftest import execute, printed
from tests.machine_parts import containers_named

HOG = "# %%\nhog = []\nwhile True:\n    hog.append(bytearray(2**26))\n"


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


SHARED = """\
# %%
import ctypes
from pathlib import Path
print(len(Path("/proc/sysvipc/shm").read_text().splitlines()) - 1)
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
ctypes.memset(libc.shmat(libc.shmget(0, 2**29, 0o1600), 0, 0), 1, 2**29)
"""


def test_a_run_has_the_memory_that_an_earlier_run_has_shared(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """System V's segments outlive the processes; six of these would be more than its limit."""
    ends = execute(read(SHARED), tmp_path / "runs", the_lab, "size=2,3,4,5,6,7")
    assert [printed(end) for end in ends] == [["0"]] * 6


HOME = """\
# %%
import os
from pathlib import Path
found = []
for folder in [Path("/tmp"), *Path("/tmp").rglob("*"), Path("/dev/shm")]:
    if folder.is_dir() and os.access(folder, os.W_OK):
        found += [folder.name] if (folder / "mine").exists() else []
        (folder / "mine").write_text("mine")
print(found)
"""


def test_a_run_finds_no_file_of_an_earlier_run_in_its_home(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """Not in a folder that was there before: IPython, for example, executes files of its own."""
    ends = execute(read(HOME), tmp_path / "runs", the_lab, "size=2,3")
    assert [printed(end) for end in ends] == [["[]"]] * 2


FILES = """\
# %%
import os
attempt = "/attempt"
{code}
# %%
import time; time.sleep(60)
"""
TOO_MUCH = {
    "files": (
        "os.mkdir(attempt + '/d')\nfor i in range(11_000): open(f'{attempt}/d/{i}', 'w').close()",
        "it leaves more than 10,000 files in its attempt",
    ),
    "bytes": (
        "for i in range(3):\n"
        "    os.posix_fallocate(os.open(f'{attempt}/{i}', os.O_CREAT | os.O_RDWR), 0, 2**30)",
        "its files and its log take more than 2 GiB",
    ),
    "depth": (
        "os.chdir(attempt)\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
        "it leaves files in its attempt that cannot be counted: File name too long",
    ),
}


@pytest.mark.parametrize(("code", "reason"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_lesson_that_fills_the_disk_fails(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path, code: str, reason: str
) -> None:
    """At once, and nothing of it is left."""
    (end,) = execute(read(FILES.format(code=code)), tmp_path / "runs", the_lab)
    assert (end.end, end.reason, end.machine_fault) == ("failed", reason, False)
    assert [path.name for path in end.attempt.iterdir()] == [attempts.LOG]


BUSY = """\
# %%
import os, time
start = time.monotonic()
for _ in range(4):
    if not os.fork():
        while time.monotonic() < start + 3: pass
        os._exit(0)
for _ in range(4): os.wait()
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - start))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is a limit, too")
def test_a_run_uses_no_more_than_its_cores(lab_image: Image, read: Read, tmp_path: Path) -> None:
    """However many processes it starts."""
    where = ContainerExecutor(lab_image, memory=2 * GIB, cores=1)
    (end,) = execute(read(BUSY), tmp_path / "runs", where)
    assert 0 < float(printed(end)[0]) < 1.3


BOMB = """\
# %%
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""


def test_a_fork_bomb_ends_soon_after_its_deadline(
    lab_image: Image, read: Read, tmp_path: Path
) -> None:
    """It is the lesson that timed out, and no process or container of it is left."""
    where = ContainerExecutor(lab_image, memory=8 * GIB, cores=1)
    runs = planner.runs([read(BOMB)], [], [], timeout_s=5)
    (end,) = executions(runs, tmp_path / "runs", where)
    assert (end.end, end.reason) == ("timed out", "not done within 5 s")
    assert containers_named("01_small") == []


def test_a_refused_system_call_is_the_lessons_error(
    the_lab: ContainerExecutor, read: Read, tmp_path: Path
) -> None:
    """It fails its cell like any missing right."""
    cells = "# %%\nimport socket\n# %%\nsocket.socket(38, 5)\n"
    (end,) = execute(read(cells), tmp_path / "runs", the_lab)
    assert (end.end, end.machine_fault) == ("failed", False)
    assert end.reason == "PermissionError: [Errno 1] Operation not permitted"
