"""Reading, finding and selecting lessons."""

from pathlib import Path

import pytest

from ci.errors import CourseError, UsageError
from ci.lesson import reader
from ci.lesson.lesson import find_lessons, select_lessons
from tests.conftest import GRADIENT, HEADER, Read, Write

THREE = [Path(f"lessons/{name}.py") for name in ("01_intro", "02_tensors", "10_more")]


@pytest.mark.parametrize("word", ["2", "02", "tensors", "02_tensors", "02_tensors.py"])
def test_a_lesson_can_be_selected_by_number_and_by_name(word: str) -> None:
    """All ways to name a lesson select the same one."""
    assert [THREE[1]] == select_lessons(THREE, word)


def test_a_selection_without_names_is_rejected() -> None:
    """A comma alone does not select all lessons."""
    with pytest.raises(UsageError, match="names no lesson"):
        select_lessons(THREE, ",")


def test_the_lock_file_of_an_editor_is_not_a_lesson(write: Write) -> None:
    """Hidden files and dangling links are ignored."""
    path = write()
    (path.parent / ".#01_small.py").symlink_to("user@host.1234")
    assert find_lessons(path.parent) == [path]


def test_a_byte_order_mark_does_not_hide_the_header(write: Write) -> None:
    """Some editors write a byte order mark."""
    path = write()
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert reader.read(path).parameters["size"].maximum == 64


def test_a_comment_after_a_value_may_end_in_a_semicolon(read: Read) -> None:
    """Only a semicolon in the code hides the value."""
    assert read('# %% check="x"\nsize  # first; second;\n').checks[0].name == "x"


def test_two_equal_cells_have_their_own_lines(read: Read) -> None:
    """The reader searches for each cell after the previous one."""
    lesson = read('# %% raises="NameError"\nx\n' * 2)
    assert lesson.checks[0].line < lesson.checks[1].line


def test_a_selection_keeps_the_order_of_the_course() -> None:
    """Lessons are in the order of their file names, not in the order of the selection."""
    assert [THREE[0], THREE[2]] == select_lessons(THREE, "more, 1")


def test_no_selection_means_the_whole_course() -> None:
    """An empty --lessons selects all lessons."""
    assert select_lessons(THREE, "") == THREE


def test_an_unknown_lesson_gets_a_suggestion() -> None:
    """The message for a typo contains the right name."""
    with pytest.raises(UsageError, match="--lessons 02_tensor: .*did you mean '02_tensors'"):
        select_lessons(THREE, "02_tensor")


def test_an_unknown_number_lists_all_lessons() -> None:
    """Without a similar name, the message lists all lessons."""
    with pytest.raises(UsageError, match="--lessons 7: .*01_intro, 02_tensors, 10_more"):
        select_lessons(THREE, "7")


def test_a_folder_without_lessons_is_an_error(tmp_path: Path) -> None:
    """A course without lessons is not green."""
    with pytest.raises(CourseError, match="no lessons"):
        find_lessons(tmp_path)


def test_a_lesson_has_a_title_in_each_language(read: Read) -> None:
    """The title is the first heading in that language."""
    assert read().titles == {"en": "A lesson", "zh": "一课"}


def test_a_check_knows_its_line(read: Read) -> None:
    """It is the line of the cell's first line of code."""
    lesson = read()
    assert (
        lesson.path.read_text().splitlines()[lesson.checks[0].line - 1] == "4.0 * np.arange(size)"
    )


def test_ids_are_the_same_at_each_read(write: Write) -> None:
    """Ids stay the same, and a cell and its translation share a number."""
    path = write()
    first, second = ([cell.id for cell in reader.read(path).notebook.cells] for _ in range(2))
    assert first == second
    assert first[:3] == ["cell-1-en", "cell-1-zh", "cell-2"]


def test_an_ordinary_percent_script_is_a_lesson(read: Read) -> None:
    """A script without header, parameters and checks can be read and has a kernel."""
    lesson = read("# %%\nprint(1)\n", header="")
    assert lesson.checks == ()
    assert lesson.notebook.metadata.kernelspec.name == "python3"


BAD_CELLS = {
    "a second check 'gradient'": GRADIENT * 2,
    "'size' is a parameter and a check": '# %% check="size"\nsize\n',
    "'x' shows no value": '# %% check="x"\nx = 1\n',
    "'p' shows no value": '# %% check="p"\nprint(1)\n',
    "'s' shows no value": '# %% check="s"\nsize;\n',
    "'n' shows no value": '# %% check="n"\nNone\n',
    "'e' shows no value": '# %% check="e"\n# nothing\n',
    "the cell of 'b' is not plain Python": '# %% check="b"\nsize +\n',
    "a second parameters cell": '# %% tags=["parameters"]\nn: int = 1\n',
    "did you mean 'check'": '# %% chek="x"\nsize\n',
    "check='two words' must be a Python name": '# %% check="two words"\nsize\n',
    "either check= or given=": '# %% check="a" given="b"\nsize\n',
    "the tag 'raises-exception' could hide": '# %% tags=["raises-exception"]\n1 / 0\n',
    "the tag 'skip-execution' could hide": '# %% tags=["skip-execution"]\nsize\n',
    "a check is part of both languages": '# %% check="x" lang="zh"\nsize\n',
    'expected "en" or "zh"': '# %% [markdown] lang="fr"\n# Bonjour\n',
}


@pytest.mark.parametrize("message", BAD_CELLS)
def test_a_malformed_cell_is_reported(read: Read, message: str) -> None:
    """The reader reports file and line, before anything runs."""
    with pytest.raises(CourseError, match=rf"lessons/01_small\.py:\d+: .*{message}"):
        read(BAD_CELLS[message])


BAD_HEADERS = {
    "unknown key 'gpu'; did you mean 'gpus'": ("gpus: {", "gpu: {"),
    "no parameter 'sze'; did you mean 'size'": ("{size: {", "{sze: {"),
    "unknown key 'minimum'": ("{min: 2,", "{minimum: 2,"),
    "default size = 4 must be at least 5": ("{min: 2,", "{min: 5,"),
    "gpus must be two whole numbers": ("{min: 0, max: 1}", "{min: 2, max: 1}"),
    "'gpus' must have": ("gpus: {min: 0, max: 1}", "gpus: 2"),
    "the header is not valid YAML": ("{min: 0, max: 1}", "{min: 0, max"),
    "timeout must be": ("gpus: {min: 0, max: 1}", "timeout: .inf"),
    "must be indented below `jupyter:`": ("# jupyter:\n", ""),
    "'size' must have `key: value` pairs": ("{size: {min: 2, max: 64}}", "{size: 2}"),
    "'lesson' must have `key: value` pairs": (
        "#     gpus: {min: 0, max: 1}\n#     parameters: {size: {min: 2, max: 64}}",
        "#     - gpus",
    ),
    "timeout must be a number of seconds": ("gpus: {min: 0, max: 1}", "timeout: soon"),
}


@pytest.mark.parametrize("message", BAD_HEADERS)
def test_a_malformed_header_is_reported(read: Read, message: str) -> None:
    """The message has the file name of the lesson."""
    old, new = BAD_HEADERS[message]
    with pytest.raises(CourseError, match=f"lessons/01_small.py.*{message}"):
        read(header=HEADER.replace(old, new))


def test_a_lesson_that_is_not_text_is_reported(write: Write) -> None:
    """The message asks for UTF-8."""
    path = write()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match="the file is not UTF-8 text: save it as UTF-8"):
        reader.read(path)
