"""Random and damaged lessons and oracles. COURSE_EXAMPLES=10000 tries more than the suite does.

The cases are from this project's own reviews.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_output

from ci.errors import CourseError
from ci.judge import verdicts
from ci.lesson import oracle, reader, script
from ci.lesson.lesson import find_lessons
from ci.lesson.value import MIME, encode
from tests.conftest import EXERCISE, GRADIENT, HEADER, ORACLE

EXAMPLES = int(os.environ.get("COURSE_EXAMPLES", "150"))
RANDOM = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
PIECES = [
    *("# ls", "# rm x", "# In[5]:", "# !a", "# %time", "# ---", "x = 1", "'a'", "é", "\t", "  "),
    *("\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1d", "\x1e", "# +", "\n", "\n\n"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=12).map("".join)
LESSON = HEADER + GRADIENT + EXERCISE


def strip(text: str) -> str:
    """A cell's text without the empty lines at its ends."""
    return re.sub(r"\A[ \t\n]*\Z|\A([ \t]*\n)+|(\n[ \t]*)+\Z", "", text)


@RANDOM
@given(st.lists(TEXTS.filter(lambda text: not re.search("\r|%%|jupyter|\"\"\"|'''", text))))
def test_the_cells_are_the_text_of_the_script(texts: list[str]) -> None:
    """Nothing is added, removed, changed or moved to another cell."""
    notebook = script.parse("".join(f"# %%\n{text}\n" for text in texts))
    assert [cell.source for cell in notebook.cells] == [strip(text) for text in texts]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a damaged lesson is written."""
    folder = tmp_path_factory.mktemp("random") / "lessons"
    folder.mkdir()
    return folder / "01_random.py"


@RANDOM
@given(st.data())
def test_a_damaged_lesson_is_read_or_refused_in_lines(path: Path, data: st.DataObject) -> None:
    """There is no traceback, and a header that is damaged never loses its settings silently."""
    inside = HEADER.index("# ---\n\n") + 6
    end = data.draw(st.sampled_from([inside, len(LESSON)]))
    start = data.draw(st.integers(0, end - 1))
    stop = data.draw(st.integers(start, min(end, start + 20)))
    new = data.draw(
        st.sampled_from(["", " ", "\n", "#", "-", ":", "[", "{", '"', "=", "x", "\x00"])
    )
    path.write_text(LESSON[:start] + new + LESSON[stop:], encoding="utf-8", newline="")
    try:
        lesson = reader.read(path)
    except CourseError as error:
        assert all(line.startswith("lessons/01_random.py") for line in str(error).splitlines())
    else:
        text = path.read_text()
        if re.search(r"size: \{min: 2, max: 64\}", text) and "size: int" in text:
            assert lesson.parameters["size"].maximum == 64, text


# What a cell may show: no two of these values agree within 1 %, and the second is right.
SHOWN = [factor * np.arange(4.0) for factor in (0, 4, 4.1, -4, 6, 1e9)]
SHOWN += [np.array(4.0), np.zeros(0), np.full(4, np.nan), np.array(True), np.arange(4) * 4]
DAMAGE = [
    *(
        "",
        " ",
        "\n",
        "#",
        "\\",
        "(",
        ")",
        '"',
        "=",
        "0",
        "-",
        "*",
        ".",
        ",",
        "x",
        "\x00",
        "1e30",
        "nan",
    ),
    *(" rel=1, why='w',", " abs=9.0, why='w',", " zero=True,", " elementwise=True,", "\n    "),
    *(
        " terms=lambda size: 1e30,",
        " terms=lambda: 4,",
        " terms=expect,",
        " rel=np.nan,",
        "return ",
    ),
    *("np.inf *", "np.nan +", "0 *", "None,", "object()", "[", "yield ", "raise ", "size, "),
]


@settings(RANDOM, max_examples=max(50, EXAMPLES // 3))  # each starts a process
@given(st.data())
def test_a_damaged_oracle_is_refused_or_accepts_one_value(path: Path, data: st.DataObject) -> None:
    """There is no traceback, and no comparison that two different values pass."""
    start = data.draw(st.integers(0, len(ORACLE)))
    stop = data.draw(st.integers(start, min(len(ORACLE), start + 20)))
    text = ORACLE[:start] + data.draw(st.sampled_from(DAMAGE)) + ORACLE[stop:]
    path.write_text(HEADER + GRADIENT, encoding="utf-8")
    expected = path.parent / "expected" / path.name
    expected.parent.mkdir(exist_ok=True)
    expected.write_text(text, encoding="utf-8", newline="")
    lesson = reader.read(path)
    try:
        oracles = oracle.load(lesson)
    except CourseError as error:
        assert re.fullmatch(r"lessons/(expected/)?01_random.py[^\n]*", str(error)), text
        return
    accepted = []
    for value in SHOWN:
        show(lesson.notebook, lesson.checks[0].cell, value)
        [result] = verdicts.judge_checks(lesson, oracles, lesson.defaults, lesson.notebook)
        assert result.green or result.message, text
        accepted += [value] if result.green else []
    assert len(accepted) <= 1, (text, accepted)


def show(notebook: NotebookNode, name: str, value: Any) -> None:
    """Give the cell of this name a value."""
    cell = next(cell for cell in notebook.cells if cell.id == name)
    data = {MIME: encode(value)}
    cell.execution_count, cell.outputs = 1, [new_output("execute_result", data, execution_count=1)]


@pytest.mark.parametrize("name", ["02_y.PY", "02_y.py/", "02_y.py@"])
def test_what_only_looks_like_a_lesson_is_named(path: Path, tmp_path: Path, name: str) -> None:
    """A dangling link, a folder, or another ending: its checks would be missing."""
    (tmp_path / "01_x.py").touch()
    other = tmp_path / name.rstrip("/@")
    if name[-1] == "/":
        other.mkdir()
    elif name[-1] == "@":
        other.symlink_to("nowhere")
    else:
        other.touch()
    with pytest.raises(CourseError, match=rf"/{other.name} is not a lesson"):
        find_lessons(tmp_path)


@pytest.mark.parametrize("name", ["90_C#.py", "90_100%.py", "90_a,b.py", "90_what?.py"])
def test_a_name_that_breaks_links_is_refused(tmp_path: Path, name: str) -> None:
    """A page has the name of its lesson, and `--lessons` divides at commas."""
    (tmp_path / name).touch()
    with pytest.raises(CourseError, match=re.escape(f"/{name} has ")):
        find_lessons(tmp_path)


def test_names_may_have_spaces_and_chinese_characters(tmp_path: Path) -> None:
    """Browsers take them."""
    (tmp_path / "02 张量.py").touch()
    assert find_lessons(tmp_path) == [tmp_path / "02 张量.py"]
