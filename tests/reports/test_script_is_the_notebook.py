"""The cells of a lesson are the text of its script, character for character.

Cases without an address are from this project's own reviews.
"""

import pytest

from ci.errors import CourseError
from ci.lesson import exercises, script
from tests.conftest import EXERCISE, Read

# jupytext turns comments that look like commands into commands, unless comment_magics is off:
# https://github.com/jupytext/jupytext/issues/297 (ends in a question mark)
# https://github.com/jupytext/jupytext/issues/339 (begins with a command of the shell)
COMMENTS = [
    *("# rm scratch90.txt", "# !touch owned", "# v = %time 1", "# files = !ls", "# ls", "# cat a"),
    *("# cp a b", "# mkdir x", "# echo 1", "# torch.ones?", "# %matplotlib inline", "# %%time"),
    *("# In[5]:", "# <codecell>", "# +", "# -", "#+ 1", "# region x", "# endregion", "#", "#!x"),
]
# https://github.com/datalayer/jupyter-mcp-server/issues/436
SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("comment", COMMENTS)
def test_a_comment_stays_a_comment(read: Read, comment: str) -> None:
    """It is neither executed nor does it begin another cell."""
    source = f"x = 1\n{comment}\ny = 2"
    assert [cell.source for cell in read(f"# %%\n{source}\n").notebook.cells[-1:]] == [source]


@pytest.mark.parametrize("character", SEPARATORS)
def test_a_separator_in_a_string_does_not_end_the_line(read: Read, character: str) -> None:
    """str.splitlines would cut the line, even into two cells."""
    source = f'text = "a{character}# %% b"\ntext'
    assert read(f"# %%\n{source}\n").notebook.cells[-1].source == source


def test_a_mark_in_a_string_is_text(read: Read) -> None:
    """As it is for jupytext."""
    source = "text = '''\n# %% of something\n# %% check=\"x\"\n'''"
    assert read(f"# %%\n{source}\n").notebook.cells[-1].source == source


def test_a_comment_that_could_begin_a_cell_is_refused(read: Read) -> None:
    """A title would vanish from the notebook and cut the cell in two."""
    with pytest.raises(CourseError, match=r"small\.py:\d+: '# %% of something' is a comment"):
        read("# %%\nx = 1\n# %% of something\ny = 2\n")


def test_a_title_after_an_empty_line_begins_a_cell(read: Read) -> None:
    """Spyder and VS Code write such titles."""
    assert read("# %%\nx = 1\n\n# %% Solve Ax = b\ny = 2\n").notebook.cells[-1].source == "y = 2"


def test_students_get_comments_as_comments(read: Read) -> None:
    """Only the lines of solutions are missing from their script."""
    hint = EXERCISE.replace("halves = ...", "# ls\n# !rm x\nhalves = ...  # \u2028")
    text = read(hint).path.read_text()
    start = text.index('# %% tags=["solution"]')
    assert exercises.without_solutions(text) + text[start:] == text


def test_a_script_without_marks_is_no_lesson(read: Read) -> None:
    """It would be one cell without a check."""
    with pytest.raises(CourseError, match="no cells found; run `jupytext --to py:percent`"):
        read("print(1)\n", header="")


def test_all_faults_are_reported_together(read: Read) -> None:
    """One line for each, in the order of their lines."""
    cells = '# %% tags=parameters\n\n# %% check="a" check="b"\n1\n\n# %% chek="x"\n1\n'
    with pytest.raises(script.LessonError) as raised:
        read(cells + '\n# %% tags=["paramters"]\nx = 1\n\n# %%\n!pip install x\n')
    lines = str(raised.value).splitlines()
    expected = ["cannot read 'tags=parameters'", "a second attribute 'check'", "mean 'check'?"]
    expected += ["did you mean 'parameters'?", "`!pip install x` installs packages"]
    assert len(lines) == len(str(raised.value).splitlines()) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))
