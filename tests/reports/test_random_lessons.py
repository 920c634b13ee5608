"""Random and damaged lessons. COURSE_EXAMPLES=10000 tries more of them than the suite does."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.errors import CourseError
from ci.lesson import reader, script
from ci.lesson.lesson import find_lessons
from tests.conftest import EXERCISE, GRADIENT, HEADER

EXAMPLES = int(os.environ.get("COURSE_EXAMPLES", "300"))
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
    return re.sub(r"\A([ \t]*\n)+|(\n[ \t]*)+\Z|\A[ \t]*\Z", "", text)


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
