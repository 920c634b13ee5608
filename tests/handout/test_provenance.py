"""What a page says of the run that it shows."""

import re
import subprocess
from pathlib import Path

from ci.handout import provenance
from tests.conftest import Read
from tests.handout.test_publish import outcome


def test_a_handout_names_the_commit_of_its_course(read: Read, tmp_path: Path) -> None:
    """And a plus where something was changed since; nothing outside a repository."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = outcome(read, "01_one")
    folder = done.run.lesson.path.parent
    assert provenance.course_commit(folder) == ""

    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "One"], check=True)
    clean = provenance.course_commit(folder)
    (folder / "01_one.py").write_text("# changed", "utf-8")

    assert re.fullmatch("[0-9a-f]{12}", clean)
    assert provenance.course_commit(folder) == f"{clean} +"
