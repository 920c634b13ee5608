"""What of a lesson's prose is refused before any kernel starts, with its file and line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.handout import check_prose
from ci.lesson import reader
from ci.lesson.lesson import Lesson
from tests.handout.pdf.conftest import LESSON

Read = Callable[[str], Lesson]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a lesson in whose English prose a text begins on line 14."""

    def read(prose: str) -> Lesson:
        path = tmp_path / "lessons" / "03_gradients.py"
        path.parent.mkdir(exist_ok=True)
        source = "\n".join(f"# {line}" for line in prose.split("\n"))
        path.write_text(LESSON.replace("# | a | b |", f"{source}\n#\n# | a | b |"), "utf-8")
        return reader.read(path)

    return read


def test_a_good_lesson_has_nothing_to_refuse(read: Read) -> None:
    """Formulas, tables and code of the lesson can be set."""
    check_prose.check([read("")])


@pytest.mark.parametrize(
    ("prose", "message"),
    [
        (r"$\unheard x$", r"lessons/03_gradients.py:14: the formula \\unheard x can't be set"),
        ("$$\n\nx\n\n$$", r"03_gradients.py:14: \$\$: "),
        ("$\\unheard\nx$", r"03_gradients.py:14: the formula \\unheard x can't be set"),
        (r"$\frac{1$", r"03_gradients.py:14: \$\\frac{1\$: this is not a formula"),
        ("$ x for $", r"03_gradients.py:14: \$: this is not a formula"),
        ("**图。**左边", r"03_gradients.py:14: \*\*图。\*\*左边: \*\* is not read here"),
        ("$$$$", r"03_gradients.py:14: the formula \$\$\$\$ can't be set: it is empty"),
        (
            r"$\hspace{1pt}x$",
            r"03_gradients.py:14: the formula .*: \\hspace is not the same in HTML",
        ),
        (r"$\left(x$", r"03_gradients.py:14: the formula .*: each \\left needs its \\right"),
        ("** not** touching", r"03_gradients.py:14: \*\*: \*\* is not read here: it must touch"),
        ("a 𓀀", r"03_gradients.py:14: no font .* 𓀀 \(U\+13000\): replace it by words"),
        ("see <video src='x'>", r"03_gradients.py:14: the HTML <video src='x'> is not in the"),
        ("<script>\nalert(1)\n</script>", r"03_gradients.py:14: the HTML <script> is not in"),
        ("![a](cat.png)", r"03_gradients.py:14: the picture cat.png: there is no such file"),
        ("<img src='../cat.png'>", r"03_gradients.py:14: the picture ../cat.png: .* file below"),
        ("![a](https://x.y/cat.png)", r"03_gradients.py:14: .* elsewhere is not loaded"),
        ("![a](cat.gif)", r"03_gradients.py:14: .* must be a PNG, JPEG or SVG file"),
        ("[next](04_none.py)", r"03_gradients.py:14: the link to 04_none.py: .* to a lesson"),
        ("[data](data.csv)", r"03_gradients.py:14: the link to data.csv: "),
        (":ref:`x`", r"03_gradients.py:14: :ref:`x` is reStructuredText or MyST"),
        ("{doc}`x`", r"03_gradients.py:14: \{doc\}`x` is reStructuredText or MyST"),
        ("`a <b>`__", r"03_gradients.py:14: `a <b>`_ is reStructuredText or MyST"),
        (".. figure:: x.png", r"03_gradients.py:14: .. figure:: is reStructuredText or MyST"),
        (".. _Name: https://x.y", r"03_gradients.py:14: .. _Name: is reStructuredText or MyST"),
        ("a\fb", r"03_gradients.py:14: the control character U\+000C: remove it"),
        ("```{tabs}\nx\n```", r"03_gradients.py:14: the directive {tabs} is not read here"),
    ],
)
def test_what_can_t_be_shown_is_named_with_its_line(read: Read, prose: str, message: str) -> None:
    """Before any kernel starts, with the file, the line and the text."""
    with pytest.raises(CourseError, match=message):
        check_prose.check([read(prose)])


def test_all_faults_are_named_together(read: Read) -> None:
    """One run is enough to see everything that is to mend."""
    with pytest.raises(CourseError) as refused:
        check_prose.check([read("a <video>\n\n![b](c.png)\n\n$\\unheard$")])
    assert [line.split(": ")[0] for line in str(refused.value).split("\n")] == [
        f"lessons/03_gradients.py:{line}" for line in (14, 16, 18)
    ]


def test_all_characters_without_a_font_are_named_together(read: Read) -> None:
    """Each with the line of the character itself."""
    with pytest.raises(CourseError) as refused:
        check_prose.check([read("a\n𓀁\n𓀀")])
    assert [line.split(": ")[0] for line in str(refused.value).split("\n")] == [
        "lessons/03_gradients.py:16",
        "lessons/03_gradients.py:15",
    ]


@pytest.mark.parametrize("prose", ["[a](https://x.y/𓀀)", "<!-- 𓀀 -->", "列 ⼀ 한국어 🦙 ✅"])
def test_what_is_not_printed_or_has_a_font_is_no_fault(read: Read, prose: str) -> None:
    """An address behind words, a comment, emoji, Korean, and characters with a usual form."""
    check_prose.check([read(prose)])
