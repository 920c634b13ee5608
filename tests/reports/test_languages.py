"""A lesson's prose is in both languages, or in the one that its header declares.

The cases are from this project's own reviews.
"""

import json
import zipfile
from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.handout import index, publish
from ci.handout.converters import write as write_handouts
from ci.handout.handout import Handout
from ci.handout.pool import HandoutPool
from ci.judge.outcome import Outcome
from ci.lesson.lesson import Lesson
from ci.plan.planner import Run
from ci.report import progress
from tests.conftest import Read

ENGLISH = "The mean of a vector is the sum of its elements divided by their number."
CHINESE = "向量的平均值是其所有元素之和除以元素的个数。"
WAYS = "or declare `languages: [{}]` in the header, below `jupyter:` and `lesson:`"


def header(languages: str) -> str:
    """The header of a lesson in these languages."""
    return f"# ---\n# jupyter:\n#   lesson:\n#     languages: {languages}\n# ---\n"


def prose(text: str, lang: str = "") -> str:
    """A text cell."""
    mark = f' lang="{lang}"' if lang else ""
    return f"# %% [markdown]{mark}\n" + "".join(f"# {line}\n" for line in text.split("\n"))


CODE = "# %%\nx = 1\n"
BOTH = prose("# Mean\n\n" + ENGLISH, "en") + prose("# 平均值\n\n" + CHINESE, "zh") + CODE


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("marked", [True, False])
def test_one_language_needs_no_other(read: Read, language: str, marked: bool) -> None:
    """Its prose may say lang= or not, and only this title is needed."""
    text = {"en": f"# Mean\n\n{ENGLISH}", "zh": f"# 平均值\n\n{CHINESE}"}[language]
    cells = prose(text, language if marked else "") + CODE
    lesson = read(cells, header=header(f"[{language}]"))
    assert lesson.languages == (language,)
    assert dict(lesson.titles) == {language: {"en": "Mean", "zh": "平均值"}[language]}


def test_a_lesson_without_the_key_has_both(read: Read) -> None:
    """Pictures, formulas and names are in any language."""
    neutral = prose("![](a.png)\n\n$$x$$") + prose("### `torch.mean`") + prose("PyTorch")
    assert read(BOTH + neutral + CODE, header="").languages == ("en", "zh")
    assert read(BOTH, header=header("[zh, en]")).languages == ("en", "zh")


@pytest.mark.parametrize(
    "value", ["zh", "[]", "[zh, zh]", "{zh: 1}", "[[zh]]", "1", "[de]", "[zh-CN]"]
)
def test_what_languages_may_be(read: Read, value: str) -> None:
    """A list of the two."""
    with pytest.raises(CourseError, match=r"lessons/01_small\.py: header: languages.*(en|zh)"):
        read(CODE, header=header(value))
    with pytest.raises(CourseError, match="the key 'languages' has no value"):
        read(CODE, header=header(""))


UNTRANSLATED = {
    "only Chinese": (prose(f"# 平均值\n\n{CHINESE}", "zh") + CODE, 2, "no English transl", "zh"),
    "only English": (prose(f"# Mean\n\n{ENGLISH}", "en") + CODE, 2, "no Chinese translation", "en"),
    "no lang=": (prose(f"# Mean\n\n{ENGLISH}") + CODE, 2, 'write lang="en"', "en"),
    "no lang=, Chinese": (prose(f"# 平均值\n\n{CHINESE}") + CODE, 2, 'write lang="zh"', "zh"),
    "a section": (BOTH + prose(f"## Sum\n\n{ENGLISH}", "en") + CODE, 12, "no Chinese", "en"),
    "a Chinese section": (BOTH + prose(CHINESE, "zh") + CODE, 12, "no English", "zh"),
    "a cell of three": (
        BOTH + prose(ENGLISH, "en") + prose(CHINESE, "zh") + CODE + prose(ENGLISH) + CODE,
        18, 'no lang=: write lang="en"', "en",
    ),
    "a third cell": (
        prose("# Mean", "en") + prose("# 平均值", "zh") + prose(ENGLISH, "en") + CODE,
        6, "no Chinese", "en",
    ),
    "only a heading": (
        prose("# Mean\n\n" + " ".join([ENGLISH] * 3), "en") + prose("# 平均值", "zh") + CODE,
        2, "the Chinese text is much shorter than the English one", "en",
    ),
    "only a heading in English": (
        prose("# Mean", "en") + prose("# 平均值\n\n" + CHINESE * 3, "zh") + CODE,
        2, "the English text is much shorter than the Chinese one", "zh",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNTRANSLATED.values(), ids=UNTRANSLATED)
def test_half_a_translation_names_both_ways_out(
    read: Read, case: tuple[str, int, str, str]
) -> None:
    """Translate it, or declare that there is one language."""
    cells, line, reason, language = case
    with pytest.raises(CourseError) as error:
        read(cells, header="")
    message = str(error.value)
    assert message.startswith(f"lessons/01_small.py:{line}: ")
    assert reason in message
    assert WAYS.format(language) in message
    assert message.count("\n") == 0


def test_several_untranslated_texts_are_one_fault(read: Read) -> None:
    """The first of them, and how many follow; other faults stay beside it."""
    one = prose(ENGLISH, "en") + CODE
    with pytest.raises(CourseError, match=r":2: .*translation: add it \(and of 2 more\)"):
        read(one * 3, header="")
    with pytest.raises(CourseError, match=r"timeout must be(.|\n)*:8: .*no Chinese translation"):
        read(one, header=header("[en, zh]\n#     timeout: -3"))


WRONG = {
    "a cell of the other": (prose(ENGLISH, "en"), "[zh]", 'lang="en", but the header says'),
    "English in Chinese": (prose(ENGLISH), "[zh]", "this text is English, but the header says"),
    "Chinese in English": (prose(CHINESE), "[en]", "this text is Chinese, but the header says"),
    "Chinese in an English cell": (prose(CHINESE, "en"), "[en]", 'its cell says lang="en"'),
    "English in a Chinese cell": (prose(ENGLISH, "zh"), "[zh]", 'its cell says lang="zh"'),
    "the wrong way around": (prose(CHINESE, "en") + prose(ENGLISH, "zh"), "[en, zh]", "its cell"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_prose_in_another_language_is_a_fault(read: Read, case: tuple[str, str, str]) -> None:
    """At the line of the text."""
    cells, languages, reason = case
    with pytest.raises(CourseError, match=r"^lessons/01_small\.py:7: ") as error:
        read(cells + CODE, header=header(languages))
    assert reason in str(error.value)


def test_code_and_formulas_tell_no_language(read: Read) -> None:
    """A Chinese text may quote much English code."""
    quoted = f"{CHINESE}\n\n```\n{ENGLISH}\n{ENGLISH}\n```\n\n$\\text{{{ENGLISH}}}$ `{ENGLISH}`"
    assert read(prose(quoted) + CODE, header=header("[zh]")).languages == ("zh",)


def test_progress_shows_the_headings_of_the_only_language(read: Read) -> None:
    """Beside cells of a Chinese lesson."""
    lesson = read(prose("# 斜率", "zh") + CODE, header=header("[zh]"))
    assert progress.headings(lesson)[-1] == "斜率"


def outcome(lesson: Lesson) -> Outcome:
    """A green run of a lesson, without outputs."""
    return Outcome(Run(lesson, lesson.defaults), "verified", notebook=lesson.notebook, key="k")


def test_only_the_handouts_of_its_language_are_made(
    read: Read, tmp_path: Path, pool: HandoutPool
) -> None:
    """Page, PDF, notebook, entry and links: nothing in the other language, and none leads there."""
    chinese = read(prose(f"# 平均值\n\n{CHINESE}") + CODE, header=header("[zh]"), name="02_zh")
    english = read(prose(f"# Mean\n\n{ENGLISH}") + CODE, header=header("[en]"), name="03_en")
    both = [read(BOTH, header="", name=name) for name in ("01_both", "04_both")]
    lessons = [both[0], chinese, english, both[1]]
    order = [lesson.name for lesson in lessons]
    publish.publish([outcome(lesson) for lesson in lessons], order, tmp_path, pool)

    page = tmp_path / "handouts"
    names = {f"zh/02_zh.{kind}" for kind in ("html", "pdf", "ipynb")}
    assert {str(p.relative_to(page)) for p in page.glob("*/02_zh*")} == names
    assert {p.parent.name for p in page.glob("*/03_en*")} == {"en"}
    html = (page / "zh/02_zh.html").read_text("utf-8")
    assert 'hreflang="en"' not in html
    assert 'href="../en' not in html
    assert ENGLISH.split()[2] not in json.loads((page / "zh/02_zh.ipynb").read_text())["cells"]
    assert 'href="02_zh.html" rel="next"' in (page / "zh/01_both.html").read_text("utf-8")
    assert 'href="03_en.html" rel="next"' in (page / "en/01_both.html").read_text("utf-8")
    for path in page.glob("*.html"):
        text = path.read_text("utf-8")
        assert "en/02_zh" not in text
        assert "zh/03_en" not in text
    with zipfile.ZipFile(page / "handouts.zip") as archive:
        assert len([name for name in archive.namelist() if "/02_zh" in name]) == 3


def test_one_language_alone(read: Read, tmp_path: Path) -> None:
    """`write` makes three files, and a page of such lessons has this title."""
    lesson = read(prose(f"# 平均值\n\n{CHINESE}") + CODE, header=header("[zh]"))
    paths = write_handouts(Handout(outcome(lesson), {}), tmp_path)
    assert {path.parent.name for path in paths} == {"zh"}
    assert "平均值" in index.pages([index.entry(outcome(lesson))])["index.html"]
