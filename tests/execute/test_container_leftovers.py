"""What a lesson leaves behind in the lab harms neither the machine nor the next run."""

import os
from pathlib import Path

import pytest

from ci.execute.container import ContainerExecutor
from ci.lab.containers import GIB
from ci.lab.image import Image
from ci.plan import attempts
from tests.conftest import Read
from tests.execute.conftest import execute, printed

PLANTED = """\
# %%
import os
attempt = "/attempt"
os.symlink("{victim}", attempt + "/.checks.json.{pid}")
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
    (end,) = execute(
        read(PLANTED.format(victim=victim, pid=os.getpid())), tmp_path / "runs", the_lab
    )
    assert end.end == "completed"
    assert sorted(path.name for path in end.attempt.iterdir()) == ["executed.ipynb", "log.txt"]
    owners = {(path.stat().st_uid, path.is_symlink()) for path in end.attempt.iterdir()}
    assert owners == {(os.getuid(), False)}
    assert victim.read_text() == "the host's"


@pytest.mark.parametrize("as_root", [False, True])
def test_a_run_sees_no_other_attempt(
    lab_image: Image, read: Read, tmp_path: Path, as_root: bool
) -> None:
    """Neither an earlier one nor that of another container; so a judged attempt stays as it was."""
    cells = "# %%\nimport os\nprint(os.listdir('/attempt'), open('/attempt/left', 'x').name)\n"
    where = ContainerExecutor(lab_image, memory=2 * GIB, as_root=as_root)
    ends = execute(read(cells), tmp_path / "runs", where, "size=2,3")
    assert [printed(end) for end in ends] == [["['log.txt'] /attempt/left"]] * 2


SWAPPED = """\
# %%
import glob, os
for path in ["/attempt", *glob.glob("/attempt*/*"), *glob.glob("/attempt*/*/.*")]:
    try:
        os.rename(path, path + "-before")
        os.symlink("{victim}", path)
    except OSError:
        pass
"""


@pytest.mark.parametrize("as_root", [False, True])
def test_a_link_in_the_place_of_an_attempt_is_not_followed(
    lab_image: Image, read: Read, tmp_path: Path, as_root: bool
) -> None:
    """What is removed after a run is its own; as root inside, as if the caller were not root."""
    victim = tmp_path / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "file").write_text("the machine's")
    before = victim.stat().st_mode
    where = ContainerExecutor(lab_image, memory=2 * GIB, as_root=as_root)
    (end,) = execute(read(SWAPPED.format(victim=victim)), tmp_path / "runs", where)
    attempts.complete(end.attempt)
    assert sorted(path.name for path in victim.iterdir()) == ["file", "folder"]
    assert victim.stat().st_mode == before


UNREADABLE = """\
# %%
import os
os.makedirs("/attempt/a/b")
open("/attempt/a/b/c", "w").close()
os.link("/attempt/a/b/c", "/attempt/d")
for path in ("/attempt/a/b/c", "/attempt/a/b", "/attempt/a", "/attempt/log.txt", "/attempt"):
    os.chmod(path, 0)
"""


@pytest.mark.parametrize("as_root", [False, True])
def test_files_without_rights_are_removed(
    lab_image: Image, read: Read, tmp_path: Path, as_root: bool
) -> None:
    """The run fails because its notebook cannot be saved; the next one is not harmed."""
    cells = UNREADABLE.replace("\n", "\n    ").replace("# %%\n", "# %%\nif size == 2:\n", 1)
    where = ContainerExecutor(lab_image, memory=2 * GIB, as_root=as_root)
    ends = execute(read(cells.rstrip() + "\n"), tmp_path / "runs", where, "size=2,3")
    assert [end.machine_fault for end in ends] == [False, False]
    assert ends[1].reason == ""
    for end in ends:
        left = {
            path.name: (path.stat().st_uid, path.stat().st_mode) for path in end.attempt.iterdir()
        }
        assert set(left) <= {"executed.ipynb", "log.txt"}
        assert set(left.values()) == {(os.getuid(), 0o100644)}
    assert sorted((tmp_path / "runs/01_small").glob("*/.*")) == sorted(e.attempt for e in ends)


GIVEN_AWAY = """\
# %%
import fcntl, os, shutil, subprocess
def make_permanent(path):
    with open(path) as file:
        fcntl.ioctl(file, 0x40086602, (0x10).to_bytes(8, "little"))  # FS_IOC_SETFLAGS
ways = {
    "another user": lambda path: os.chown(path, 1234, -1),
    "another group": lambda path: os.chown(path, -1, 1234),
    "nobody": lambda path: subprocess.check_call(
        ["su", "nobody", "-s", "/bin/sh", "-c", "true"], stderr=subprocess.DEVNULL
    ),
    "permanent": make_permanent,
}
for name, give in ways.items():
    path = shutil.copy("/usr/bin/id", f"/attempt/{name}")
    try:
        give(path)
    except (PermissionError, subprocess.CalledProcessError):
        print(name)
os.chmod(path, 0o6777)
os.mkdir("/attempt/folder")
os.chmod("/attempt/folder", 0o3777)
"""


@pytest.mark.parametrize("as_root", [False, True])
def test_a_lesson_can_give_no_file_to_another_user(
    lab_image: Image, read: Read, tmp_path: Path, as_root: bool
) -> None:
    """Nor make one permanent, nor leave one with set-id bits, nor harm the next run."""
    where = ContainerExecutor(lab_image, memory=2 * GIB, as_root=as_root)
    ends = execute(read(GIVEN_AWAY), tmp_path / "runs", where, "size=2,3")
    for end in ends:
        assert printed(end) == ["another user", "another group", "nobody", "permanent"]
        left = {
            path.name: (path.stat().st_uid, path.stat().st_mode) for path in end.attempt.iterdir()
        }
        assert left == dict.fromkeys(("executed.ipynb", "log.txt"), (os.getuid(), 0o100644))
    assert sorted((tmp_path / "runs/01_small").glob("*/.*")) == sorted(e.attempt for e in ends)
