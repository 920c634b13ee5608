"""The student's copies: which are updated, and which are never overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest

from ci.jupyterlab import copies

HEADER = "# ---\n# jupyter: {kernelspec: {name: python3}}\n# ---\n"
REWRITTEN = "# ---\n# jupyter:\n#   kernelspec:\n#     name: python3\n# ---\n"
CELL = "\n# %%\n1 + 1;\n"


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    """A course of one lesson and one package."""
    folder = tmp_path / "lessons"
    (folder / "parallel/__pycache__").mkdir(parents=True)
    (folder / "parallel/__pycache__/network.pyc").write_bytes(b"\0")
    (folder / "parallel/network.py").write_text("SIZE = 1\n")
    (folder / "01_small.py").write_text(HEADER + CELL)
    return folder


@pytest.fixture
def mine(tmp_path: Path, lessons: Path) -> Path:
    """The student's folder after the first start."""
    folder = tmp_path / "mine"
    assert copies.update(lessons, folder) == []
    return folder


def files(folder: Path) -> dict[str, str]:
    """The texts of the files below a folder, without the record."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_lessons_and_packages_are_copied(mine: Path) -> None:
    """With their folders, and without Python's caches."""
    assert files(mine) == {"01_small.py": HEADER + CELL, "parallel/network.py": "SIZE = 1\n"}


def test_an_unchanged_copy_follows_the_course(lessons: Path, mine: Path) -> None:
    """Every time."""
    for text in ("SIZE = 2\n", "SIZE = 3\n"):
        (lessons / "parallel/network.py").write_text(text)
        assert copies.update(lessons, mine) == []
        assert files(mine)["parallel/network.py"] == text


def test_a_copy_that_was_only_opened_counts_as_unchanged(lessons: Path, mine: Path) -> None:
    """Jupyter rewrites the header when it opens a lesson."""
    (mine / "01_small.py").write_text(REWRITTEN + CELL)
    (lessons / "01_small.py").write_text(HEADER + CELL * 2)
    assert copies.update(lessons, mine) == []
    assert files(mine)["01_small.py"] == HEADER + CELL * 2


def test_a_changed_copy_stays(lessons: Path, mine: Path) -> None:
    """If the course changes too, each start says so."""
    (mine / "01_small.py").write_text(HEADER + "# mine\n")
    assert copies.update(lessons, mine) == []
    (lessons / "01_small.py").write_text(HEADER + CELL * 2)
    for _ in range(2):
        (line,) = copies.update(lessons, mine)
        assert line.startswith("01_small.py has changed in the course; your copy stays")
        assert files(mine)["01_small.py"] == HEADER + "# mine\n"


def test_a_renamed_copy_makes_room_for_the_courses(lessons: Path, mine: Path) -> None:
    """The student then has both."""
    (mine / "01_small.py").rename(mine / "01_mine.py")
    assert copies.update(lessons, mine) == []
    assert {"01_small.py", "01_mine.py"} < set(files(mine))


@pytest.mark.parametrize("record", ["", "[]", "{"])
def test_without_its_record_every_copy_counts_as_changed(
    lessons: Path, mine: Path, record: str
) -> None:
    """A broken record protects everything."""
    (mine / copies.RECORD).write_text(record)
    (lessons / "01_small.py").write_text(HEADER + CELL * 2)
    assert len(copies.update(lessons, mine)) == 1
    assert files(mine)["01_small.py"] == HEADER + CELL


def test_a_link_is_the_students_and_is_not_written_through(
    lessons: Path, mine: Path, tmp_path: Path
) -> None:
    """Whether it leads to a file or nowhere."""
    for target in ("else.py", "nowhere.py"):
        (mine / "01_small.py").unlink()
        (mine / "01_small.py").symlink_to(tmp_path / target)
        (tmp_path / "else.py").write_text("# another file\n")
        assert copies.update(lessons, mine) == []
        assert (mine / "01_small.py").is_symlink()
    assert (tmp_path / "else.py").read_text() == "# another file\n"
    assert not (tmp_path / "nowhere.py").exists()


def test_a_file_that_cannot_be_copied_is_reported(lessons: Path, tmp_path: Path) -> None:
    """The student has a file where the course has a folder; other files are copied."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "parallel").write_text("my notes\n")
    (line,) = copies.update(lessons, mine)
    assert line.startswith("parallel/network.py of the course was not copied: ")
    assert files(mine) == {"01_small.py": HEADER + CELL, "parallel": "my notes\n"}


def test_it_becomes_the_command(lessons: Path, tmp_path: Path) -> None:
    """The words after the two folders run in the student's folder, with their exit status."""
    command = [sys.executable, "-c", "import sys; sys.exit(len(open('01_small.py').read()))"]
    words = [
        sys.executable,
        "-m",
        "ci.jupyterlab.copies",
        str(lessons),
        str(tmp_path / "mine"),
        *command,
    ]
    done = subprocess.run(words, cwd=tmp_path, check=False)
    assert done.returncode == len(HEADER + CELL)
