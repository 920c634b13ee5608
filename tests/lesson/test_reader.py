"""Reading a lesson."""

from pathlib import Path

import pytest

from ci.errors import CourseError, UsageError
from ci.lesson import reader
from ci.lesson.lesson import find_lessons, select_lessons
from tests.conftest import GRADIENT, HEADER, Read, Write

THREE = [Path(f"lessons/{name}.py") for name in ("01_intro", "02_tensors", "10_more")]


@pytest.mark.parametrize("word", ["2", "02", "tensors", "02_tensors", "02_tensors.py"])
def test_a_lesson_has_a_number_and_a_name(word: str) -> None:
    """Each way to name a lesson finds the same one."""
    assert [THREE[1]] == select_lessons(THREE, word)


def test_a_selection_of_nothing_is_refused() -> None:
    """A lone comma names no lesson; it does not mean all."""
    with pytest.raises(UsageError, match="names no lesson"):
        select_lessons(THREE, ",")


def test_an_editors_lock_is_no_lesson(write: Write) -> None:
    """Hidden files and dangling links are passed over."""
    path = write()
    (path.parent / ".#01_small.py").symlink_to("user@host.1234")
    assert find_lessons(path.parent) == [path]


def test_a_byte_order_mark_does_not_hide_the_header(write: Write) -> None:
    """Some editors write one."""
    path = write()
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert reader.read(path).parameters["size"].maximum == 64


def test_a_comment_after_a_value_may_end_in_a_semicolon(read: Read) -> None:
    """Only a semicolon of the code keeps the value hidden."""
    assert read('# %% check="x"\nsize  # first; second;\n').checks[0].name == "x"


def test_two_equal_cells_have_their_own_lines(read: Read) -> None:
    """A cell is searched for after the one before it."""
    lesson = read('# %% raises="NameError"\nx\n' * 2)
    assert lesson.checks[0].line < lesson.checks[1].line


def test_a_selection_keeps_the_order_of_the_course() -> None:
    """The order is that of the file names, whatever the order of the words."""
    assert [THREE[0], THREE[2]] == select_lessons(THREE, "more, 1")


def test_no_selection_means_the_whole_course() -> None:
    """An empty --lessons takes all."""
    assert select_lessons(THREE, "") == THREE


def test_an_unknown_lesson_names_the_nearest() -> None:
    """A typo is answered with the right name."""
    with pytest.raises(UsageError, match="--lessons 02_tensor: .*did you mean '02_tensors'"):
        select_lessons(THREE, "02_tensor")


def test_an_unknown_number_lists_what_there_is() -> None:
    """Where nothing is near, all lessons are named."""
    with pytest.raises(UsageError, match="--lessons 7: .*01_intro, 02_tensors, 10_more"):
        select_lessons(THREE, "7")


def test_a_folder_without_lessons_is_an_error(tmp_path: Path) -> None:
    """Nothing found is not a green course."""
    with pytest.raises(CourseError, match="no lessons"):
        find_lessons(tmp_path)


def test_a_lesson_has_a_title_in_each_language(read: Read) -> None:
    """The first heading of each language is the title."""
    assert read().titles == {"en": "A lesson", "zh": "一课"}


def test_a_check_knows_its_line(read: Read) -> None:
    """The line is that of the cell's first line of code."""
    lesson = read()
    assert (
        lesson.path.read_text().splitlines()[lesson.checks[0].line - 1] == "4.0 * np.arange(size)"
    )


def test_ids_are_the_same_at_each_read(write: Write) -> None:
    """A cell keeps its id, and translations share its number."""
    path = write()
    first, second = ([cell.id for cell in reader.read(path).notebook.cells] for _ in range(2))
    assert first == second
    assert first[:3] == ["cell-1-en", "cell-1-zh", "cell-2"]


def test_an_ordinary_percent_script_is_a_lesson(read: Read) -> None:
    """No header, no parameters, no checks: it can be read, and has a kernel."""
    lesson = read("# %%\nprint(1)\n", header="")
    assert lesson.checks == ()
    assert lesson.notebook.metadata.kernelspec.name == "python3"


BAD_CELLS = {
    "a second check 'gradient'": GRADIENT * 2,
    "'size' is a parameter and a check": '# %% check="size"\nsize\n',
    "'x' shows nothing": '# %% check="x"\nx = 1\n',
    "'p' shows nothing": '# %% check="p"\nprint(1)\n',
    "'s' shows nothing": '# %% check="s"\nsize;\n',
    "'n' shows nothing": '# %% check="n"\nNone\n',
    "'e' shows nothing": '# %% check="e"\n# nothing\n',
    "'b' is not plain Python": '# %% check="b"\nsize +\n',
    "a second parameters cell": '# %% tags=["parameters"]\nn: int = 1\n',
    "did you mean 'check'": '# %% chek="x"\nsize\n',
    "check='two words' must be a name": '# %% check="two words"\nsize\n',
    "a check or a given": '# %% check="a" given="b"\nsize\n',
    "the tag 'raises-exception' would hide": '# %% tags=["raises-exception"]\n1 / 0\n',
    "the tag 'skip-execution' would hide": '# %% tags=["skip-execution"]\nsize\n',
    "a check stands in both handouts": '# %% check="x" lang="zh"\nsize\n',
    "there are en and zh": '# %% [markdown] lang="fr"\n# Bonjour\n',
}


@pytest.mark.parametrize("message", BAD_CELLS)
def test_a_malformed_cell_is_named(read: Read, message: str) -> None:
    """What is wrong with a cell is said with file and line, before anything runs."""
    with pytest.raises(CourseError, match=rf"lessons/01_small\.py:\d+: .*{message}"):
        read(BAD_CELLS[message])


BAD_HEADERS = {
    "unknown word 'gpu'; did you mean 'gpus'": ("gpus: {", "gpu: {"),
    "no parameter 'sze'; did you mean 'size'": ("{size: {", "{sze: {"),
    "unknown word 'minimum'": ("{min: 2,", "{minimum: 2,"),
    "default size = 4 must be at least 5": ("{min: 2,", "{min: 5,"),
    "gpus wants": ("{min: 0, max: 1}", "{min: 2, max: 1}"),
    "'gpus' wants": ("gpus: {min: 0, max: 1}", "gpus: 2"),
    "the header is not YAML": ("{min: 0, max: 1}", "{min: 0, max"),
    "timeout wants": ("gpus: {min: 0, max: 1}", "timeout: .inf"),
    "must stand below `# jupyter:`": ("# jupyter:\n", ""),
    "timeout wants a number of seconds": ("gpus: {min: 0, max: 1}", "timeout: soon"),
}


@pytest.mark.parametrize("message", BAD_HEADERS)
def test_a_malformed_header_is_named(read: Read, message: str) -> None:
    """A header that does not say what it must is an error of that lesson."""
    old, new = BAD_HEADERS[message]
    with pytest.raises(CourseError, match=f"lessons/01_small.py.*{message}"):
        read(header=HEADER.replace(old, new))


def test_a_lesson_that_is_not_text_is_named(write: Write) -> None:
    """Bytes that are not UTF-8 are an error of that lesson."""
    path = write()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match="is not UTF-8"):
        reader.read(path)
