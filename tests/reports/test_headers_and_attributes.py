"""A header or an attribute that cannot be read is a fault, never a setting that is ignored.

Cases without an address are from this project's own reviews.
"""

import re

import pytest

from ci.errors import CourseError
from tests.conftest import HEADER, Read

# https://github.com/jupytext/jupytext/issues/383 (without quotes)
# https://github.com/jupytext/jupytext/issues/1079 (a quote within quotes)
ATTRIBUTES = [
    *(
        "tags=parameters",
        'tags=["figure]',
        'check="a" check="b"',
        "check=mean",
        "raises=ValueError",
    ),
    *("tags=5", "tags=null", 'tags=[["a"]]', "tags=[1]", 'tags="figure"', "check=5", 'check "a"'),
    *(
        'tgas=["figure"]',
        'tags=["paramters"]',
        '[markdwn] lang="en"',
        '[markdown lang="en"',
        "check",
    ),
    *('tags=["figure" "setup"]', "check=“a”", 'check＝"a"', 'check："a"', "check=f'a'"),
    *('check="a" # mean', 'check=="a"', 'check="a";', '--check="a"', 'tags=["figure", "setup"'),
    *(
        'lang=["en"]',
        'check="a"given="b"',
        'check: "mean"',
        '{"check": "a"}',
        '{"tgas": ["figure"]}',
    ),
]
GOOD_ATTRIBUTES = [
    *('tab="x"', "attributes={}", 'slideshow={"slide_type": "slide"}', "collapsed=true", "id='a'"),
    *(
        "tags=['figure']",
        "name=5",
        'tags=["remove-cell"]',
    ),
]


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_an_attribute_that_cannot_be_read_is_a_fault(read: Read, attributes: str) -> None:
    """One line, with the line of the script."""
    with pytest.raises(CourseError, match=r"^lessons/01_small\.py:\d+: [^\n]*(\n|$)"):
        read(f"\n# %% {attributes}\n# a\n")


@pytest.mark.parametrize("attributes", GOOD_ATTRIBUTES)
def test_the_attributes_of_other_programs_are_accepted(read: Read, attributes: str) -> None:
    """They have no meaning here."""
    assert read(f"\n# %% {attributes}\nx = 1\n").notebook.cells[-1].source == "x = 1"


MARKS = [
    *('# %%check="a"', '#%%check="a"', ' # %% check="a"', '## %% check="a"', '# % check="a"'),
    *('＃ %% check="a"', '# %%\u3000check="a"', '# %%: raises="ValueError"', "#%%\\ tags=['a']"),
    *('# In [3]: check="a"', '# <codecell> stdout="a"', '# %% : given: "a"'),
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_comment_that_was_meant_to_begin_a_cell_is_a_fault(read: Read, mark: str) -> None:
    """Its attributes would be lost, and the check of its cell with them."""
    with pytest.raises(CourseError, match=r"^lessons/01_small\.py:20: "):
        read(f"# %%\nx = 1\n\n{mark}\nx\n")


@pytest.mark.parametrize(
    "line", ["# %timeit check = x", "# the %% of x", "# % of check: 5", "#%%%"]
)
def test_other_comments_with_a_percent_sign_are_comments(read: Read, line: str) -> None:
    """Also in a string."""
    assert read(f"# %%\nx = 1\n{line}\n").notebook.cells
    text = "y = '''\n" + MARKS[0] + "\n'''"
    assert read(f"# %%\n{text}\n").notebook.cells[-1].source == text


LESSON = "#   lesson:\n"
HEADERS = {
    "lesso": (LESSON, "#   lesso:\n"),
    "lessons": (LESSON, "#   lessons:\n"),
    "capital": (LESSON, "#   Lesson:\n"),
    "other word": (LESSON, "#   settings:\n"),
    "jupiter": ("# jupyter:\n", "# jupiter:\n"),
    "no beginning": ("# ---\n# jupyter", "# jupyter"),
    "short beginning": ("# ---\n# jupyter", "# --\n# jupyter"),
    "no space": ("# ---\n# jupyter", "#---\n# jupyter"),
    "no end": ("64}}\n# ---\n", "64}}\n"),
    "short end": ("64}}\n# ---\n", "64}}\n# --\n"),
    "empty line before": ("# ---\n# jupyter", "\n# ---\n# jupyter"),
    "comment before": ("# ---\n# jupyter", "# words\n# ---\n# jupyter"),
    "empty line within": (LESSON, "\n" + LESSON),
    "key twice": ("#     gpus: {", "#     gpus: {min: 1}\n#     gpus: {"),
    "section twice": (LESSON, LESSON + "#     timeout: 5\n" + LESSON),
    "second header": ("64}}\n# ---\n", "64}}\n# ---\n\n# ---\n# jupyter:\n#   x: 1\n# ---\n"),
    "two lines in one": ("max: 1}\n#", "max: 1}#"),
    "half a word": ("#     parameters", "#ameters"),
    "commented out": ("#     parameters", "##     parameters"),
    "date": ("#     gpus", "#     date: 2024-01-01\n#     gpus"),
    "binary": ("{min: 0, max: 1}", "!!binary aGVsbG8="),
    "set": ("{min: 0, max: 1}", "!!set {min, max}"),
    "recursive": ("{min: 0, max: 1}", "&a [*a]"),
    "number as key": ("#     gpus", "#     1: 2\n#     gpus"),
    "truth as key": ("#     gpus", "#     true: 2\n#     gpus"),
    "list as key": ("#     gpus", "#     ? [a]\n#     : 2\n#     gpus"),
    "kernelspec": (LESSON, "#   kernelspec: 3\n" + LESSON),
    "jupytext": (LESSON, "#   jupytext: 5\n" + LESSON),
    "list": (HEADER[: HEADER.index("# ---\n\n")], "# ---\n# - a\n# - b\n"),
    "empty jupyter": (HEADER[: HEADER.index("# ---\n\n")], "# ---\n# jupyter:\n"),
    "deep": ("{min: 0, max: 1}", "[" * 600),
    "long number": ("max: 1}", f"max: {'9' * 5000}}}"),
    "not a number": ("{min: 2, max: 64}", "{min: .nan, max: 64}"),
    "truth as limit": ("{min: 2, max: 64}", "{min: true, max: 64}"),
    "truth as timeout": ("#     gpus", "#     timeout: true\n#     gpus"),
    "choices of text": ("{min: 2, max: 64}", "{choices: [4, a]}"),
    "no reason": ("#     gpus", "#     checks: {none: }\n#     gpus"),
    "no choices": ("{min: 2, max: 64}", "{choices: []}"),
    "no value": ("#     gpus", "#     timeout:\n#     gpus"),
    "octal": ("{min: 0, max: 1}", "{min: 010, max: 10}"),
    "hexadecimal": ("{min: 0, max: 1}", "{min: 0x1}"),
    "base 60": ("#     gpus", "#     timeout: 1:30\n#     gpus"),
    "underscore": ("max: 64}", "max: 6_4}"),
    "colon of another width": ("#     gpus:", "#     gpus："),
    "without #": ("# ---\n# jupyter", "---\n# jupyter"),
    "languages": ("#     gpus", "#     languages: zh\n#     gpus"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_read_is_a_fault(read: Read, name: str) -> None:
    """A lesson with `gpus: {min: 1}` would run without GPUs, and be verified."""
    old, new = HEADERS[name]
    assert old in HEADER
    with pytest.raises(CourseError) as raised:
        read(header=HEADER.replace(old, new, 1))
    lines = str(raised.value).splitlines()
    assert len(lines) <= 3
    assert all(re.match(r"lessons/01_small\.py(:\d+)?: ", line) for line in lines)


@pytest.mark.parametrize("value", ["{[]: 1}", "-" * 3000 + "1", "[" * 300, "9" * 5000, "1e999"])
def test_an_odd_parameter_is_a_fault(read: Read, value: str) -> None:
    """Python itself cannot parse or compute some of them."""
    with pytest.raises(CourseError, match=r"^lessons/01_small\.py:\d+: the parameters cell"):
        read(header=HEADER.replace("size: int = 4", f"size: int = {value}"))


def test_no_checks_beside_a_check_is_a_fault(read: Read) -> None:
    """The lesson says both."""
    header = HEADER.replace("#     gpus", "#     checks: {none: prose}\n#     gpus")
    with pytest.raises(CourseError, match="'x' is a check, but the header says"):
        read('# %% check="x"\n1\n', header=header)


def test_a_magic_in_a_check_says_what_to_do(read: Read) -> None:
    """The cell would be no plain Python."""
    with pytest.raises(CourseError, match="move `%%time` to a cell of its own"):
        read('# %% check="x"\n%%time\nsize\n')


TITLES = {
    "```\n# install first\n```\n# A": "A",
    "Setext\n======": "Setext",
    "# The `mean` of $x^2$": "The mean of x^2",
    "# <b>Water</b> is H<sub>2</sub>O, `<b>`": "Water is H2O, <b>",
    "## A *second* level": "A second level",
    "# A [link](b.html) ##": "A link",
}


@pytest.mark.parametrize("text", TITLES)
def test_the_title_is_the_first_real_heading(read: Read, text: str) -> None:
    """As plain text."""
    cell = "\n".join(f"# {line}" for line in text.splitlines())
    lesson = read("", header=f"# %% [markdown]\n{cell}\n")
    assert lesson.titles["en"] == TITLES[text]
