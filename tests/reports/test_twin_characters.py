"""Characters that look like Chinese ones and are others: Kangxi radicals, compatibility forms.

The cases are from this project's own reviews.
"""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from ci.handout import check_prose
from tests.conftest import Read
from tests.reports.test_languages import prose
from tests.reports.test_prose_of_others import html_of, pdf_of, words_of

TWINS = {"⼈": "人", "⽂": "文", "\uf99c": "列", "\uf90a": "金", "⻳": "龟", "\U0002f81a": "冬"}


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_becomes_the_usual_character(twin: str) -> None:
    """In prose, code and outputs, so that search and fonts find it."""
    usual = TWINS[twin]
    cells = [
        new_markdown_cell(f"## 标题{twin}\n\n正文{twin} `{twin}`"),
        new_code_cell(f'print("{twin}")', outputs=[new_output("stream", text=f"输出{twin}")]),
    ]
    page, paper = html_of(*cells), words_of(pdf_of(*cells))
    for shown in (page, paper):
        assert twin not in shown
        assert shown.count(usual) >= 5


def test_a_radical_without_a_usual_form_is_named_with_one(read: Read) -> None:
    """The supplement of radicals has none in Unicode."""
    lesson = read(prose("# A", "en") + prose("# 部首⺠", "zh"))
    [[fault]] = check_prose.faults([(lesson.path, lesson.notebook.cells)])
    assert fault.endswith(
        "lessons/01_small.py:20: 部首⺠: it has a radical, which only looks like a character: "
        "type the character itself"
    )
