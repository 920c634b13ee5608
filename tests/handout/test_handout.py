"""From an executed notebook to a prepared one: what it holds, and what never gets into it."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

from nbformat.v4 import new_output

from ci.handout.handout import course_commit, prepare
from tests.conftest import Read
from tests.handout.conftest import Make
from tests.handout.test_publish import outcome


def test_a_language_keeps_its_own_prose_and_all_code(make: Make) -> None:
    """Cells of the other language go; cells without a language stay."""
    ids = [cell.id for cell in prepare(make(), "zh").cells]
    assert ids == ["cell-1-zh", "cell-2", "cell-3", "cell-4", "cell-5", "cell-6"]


def test_one_parameters_cell_shows_the_values_used(make: Make) -> None:
    """Its literals are the run's, its comments stay, and Papermill's own cell is removed."""
    cell = prepare(make(), "en").cells[1]
    assert cell.source.splitlines()[0] == "size: int = 8  # 长度, the length"


def test_a_parameter_s_text_is_quoted(make: Make) -> None:
    """The parameters cell is valid Python for any text."""
    cell = prepare(make(parameters={"device": 'a"b\\中'}), "en").cells[1]
    namespace: dict[str, Any] = {}
    exec(cell.source, namespace)
    assert namespace["device"] == 'a"b\\中'


def test_the_private_value_is_removed(make: Make) -> None:
    """The kernel attached it for the checks."""
    [output] = prepare(make(), "en").cells[2].outputs
    assert list(output.data) == ["text/plain"]


def test_a_traceback_shows_the_student_s_own_frames(make: Make) -> None:
    """Frames of libraries become one `…`; colours and folders of this machine are removed."""
    [error] = prepare(make(), "en").cells[4].outputs
    assert error.traceback == [
        "Cell In[5], line 1",
        '----> 1 int("x")',
        "",
        "…",
        "",
        "ValueError: invalid literal in …/file.py",
    ]


def test_a_syntax_error_is_shown_once(make: Make) -> None:
    """Its last line is already part of its frame."""
    lines = ["  Cell In[4], line 1", "    x = (1", "        ^", "SyntaxError: never closed"]
    error = new_output("error", ename="SyntaxError", evalue="never closed", traceback=lines)
    [output] = prepare(make(error), "en").cells[5].outputs
    assert "\n".join(output.traceback).count("never closed") == 1


def test_warnings_do_not_name_the_machine_s_folders(make: Make) -> None:
    """Output to stderr is shown without them."""
    warning = new_output("stream", name="stderr", text="/tmp/ipykernel_1/2.py:3: UserWarning: hey")
    [output] = prepare(make(warning), "en").cells[5].outputs
    assert output.text == "…/2.py:3: UserWarning: hey"


def test_metadata_of_the_pipeline_and_papermill_is_removed(make: Make) -> None:
    """A cell keeps the metadata that the lesson's author wrote."""
    cells = prepare(make(), "en").cells
    assert {key for cell in cells for key in cell.metadata} == {
        *("lang", "tags", "check", "given", "raises")
    }


def test_preparing_leaves_the_executed_notebook_alone(make: Make) -> None:
    """The same notebook is then prepared for the other language."""
    made = make()
    before = copy.deepcopy(made.outcome.notebook)
    prepare(made, "en")
    assert made.outcome.notebook == before


def test_a_handout_names_the_commit_of_its_course(read: Read, tmp_path: Path) -> None:
    """With a plus if files have changed since; nothing outside of a repository."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = outcome(read, "01_one")
    folder = done.run.lesson.path.parent
    assert course_commit(folder) == ""

    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "One"], check=True)
    clean = course_commit(folder)
    (folder / "01_one.py").write_text("# changed", "utf-8")

    assert re.fullmatch("[0-9a-f]{12}", clean)
    assert course_commit(folder) == f"{clean} +"
