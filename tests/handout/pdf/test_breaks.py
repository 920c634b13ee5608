"""Where lines and pages of a PDF break."""

import re
from dataclasses import replace
from pathlib import Path

import pypdf
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.handout.pdf.conftest import (
    FACTS,
    RESULTS,
    Make,
    pages,
    pdf_of,
    png,
    poppler_says,
    printed,
    prose,
    shown,
    text,
)

RIGHT = 595.28 - 50  # points: A4 less the margin


@pytest.mark.usefixtures("poppler")
def test_nothing_runs_off_the_page(make: Make, tmp_path: Path) -> None:
    """Neither a line of 10,000 characters nor a long word in prose, table, formula or link."""
    long = replace(RESULTS[0], shown="W" * 300, derivation="w" * 300, message="v" * 300)
    odd = [
        text("W" * 10_000 + "\n" + "中" * 3_000),
        shown("text/markdown", f"{'P' * 300} `{'C' * 300}` `{'a.long_name.' * 20}`"),
        shown("text/markdown", f"| {'T' * 90} | {'U' * 90} |\n|--|--|\n| 1 | `{'V' * 90}` |"),
        shown("text/latex", f"$${'+'.join(['x^2'] * 60)}$$"),
        shown("text/markdown", f"<https://x.org/{'L' * 300}>"),
    ]
    made = make(*odd, results=(long, *RESULTS[1:]), provenance={**FACTS, "machine": "m" * 300})
    content = pdf_of(made)
    boxes = poppler_says("pdftotext", content, tmp_path, "-bbox", "-")
    assert max(float(x) for x in re.findall(r'xMax="([\d.]+)"', boxes)) < RIGHT
    assert sum(boxes.count(letter) for letter in "WPCTUVLm中") > 13_000
    poppler_says("pdftoppm", content, tmp_path, "-gray", "-r", "36", str(tmp_path / "page"))
    for page in tmp_path.glob("page*.pgm"):
        assert all(min(row[-15:]) > 250 for row in _pixels(page))  # 15 pixels are 30 points


def _pixels(page: Path) -> list[bytes]:
    """The rows of a grey picture as pdftoppm writes it."""
    _, size, _, grey = page.read_bytes().split(b"\n", 3)
    width = int(size.split()[0])
    return [grey[at : at + width] for at in range(0, len(grey), width)]


@pytest.mark.usefixtures("poppler")
def test_no_line_begins_with_the_chinese_mark_after_code(tmp_path: Path) -> None:
    """Regardless of where in its line the code ends."""
    texts = ["中" * length + f" `code`{mark}文" for length in range(20, 50) for mark in "：；"]
    lines = poppler_says("pdftotext", pdf_of(prose(*texts)), tmp_path, "-layout", "-").split("\n")
    assert len([line for line in lines if "中" in line]) > len(texts)
    assert [line for line in lines if line.strip().startswith(("：", "；"))] == []


@pytest.mark.usefixtures("poppler")
def test_short_code_in_a_sentence_stays_in_one_line(tmp_path: Path) -> None:
    """Its spaces are no places to break a line."""
    texts = ["w" + "o" * length + " word" * 14 + " `k = k / 2`" for length in range(30)]
    read = poppler_says("pdftotext", pdf_of(prose(*texts)), tmp_path, "-layout", "-")
    assert read.count("k = k / 2") == len(texts)


def test_a_short_block_of_code_stays_whole() -> None:
    """Regardless of the line of a page on which it begins."""
    blocks = ["\n".join(f"b{number}_{line} = 1" for line in range(9)) for number in range(30)]
    texts = pages(printed(new_notebook(cells=[new_code_cell(block) for block in blocks])))
    assert len(texts) > 2
    for number in range(30):
        assert any(f"b{number}_0 " in page and f"b{number}_8 " in page for page in texts)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_long_block_leaves_no_line_alone(above: int) -> None:
    """Where it breaks, at least two lines stand on each side."""
    long = "\n".join(f"line_{number} = 1" for number in range(150 + above))
    cells = [new_code_cell("x = 1"), new_code_cell(long)]
    texts = pages(printed(new_notebook(cells=cells)))
    lines = [len(re.findall(r"line_\d+", page)) for page in texts]
    assert len(lines) > 1
    assert sum(lines) == 150 + above
    assert all(count != 1 for count in lines)


def test_no_heading_stands_at_the_foot_of_a_page() -> None:
    """It goes with the paragraph below it."""
    sections = [f"## Heading{number}\n\nbelow{number} {'word ' * 60}" for number in range(40)]
    texts = pages(printed(prose(*sections)))
    assert len(texts) > 2
    for number in range(40):
        assert any(f"Heading{number} below{number} " in page for page in texts)


def test_a_long_table_goes_on_on_the_next_page_and_a_short_one_stays_whole() -> None:
    """No row is lost below a page, and the columns' names are repeated."""
    long = "| name | b |\n|--|--|\n" + "\n".join(f"| long{row}. | 1 |" for row in range(90))
    short = [
        f"| a |\n|--|\n| top{n}. |\n| 2 |\n| 3 |\n| end{n}. |\n\n{'word ' * 20}" for n in range(25)
    ]
    read = printed(prose(long, *short))
    texts = pages(read)
    assert all(f"long{row}." in " ".join(texts) for row in range(90))
    assert all("name b" in page for page in texts if "long" in page)
    assert max(page.count("long") for page in texts) < 60
    for n in range(25):
        assert any(f"top{n}." in page and f"end{n}." in page for page in texts)


def test_an_exercise_stays_with_its_blank() -> None:
    """Its task and the code to complete share a page, on any line of which they begin."""
    cells = [new_markdown_cell("# Mine\n\n## Exercises")]
    for number in range(20):
        task = f"### Task{number}\n\n{'word ' * 40} end{number}"
        cells += [
            new_markdown_cell(task, metadata={"tags": ["exercise"]}),
            new_code_cell(f"blank{number} = ...\n" * 6, metadata={"tags": ["exercise"]}),
        ]
    texts = pages(printed(new_notebook(cells=cells)))
    assert len(texts) > 2
    for number in range(20):
        assert any(f"Task{number} " in page and f"blank{number} " in page for page in texts)


def test_a_figure_and_its_caption_share_a_page() -> None:
    """Regardless of the line of a page on which they begin."""
    cells = [new_markdown_cell("# Mine")]
    for number in range(12):
        cells += [
            new_code_cell("x", outputs=[shown("image/png", png())]),
            new_markdown_cell(f"**Figure.** number {number}."),
            new_markdown_cell("word " * 40 * (number % 4)),
        ]
    read = printed(new_notebook(cells=cells))
    drawn = [page.extract_text().count("Figure.") for page in read.pages]
    assert len(drawn) > 2
    assert sum(drawn) == 12
    assert drawn == [_pictures(page) for page in read.pages]


def _pictures(page: pypdf.PageObject) -> int:
    """How many pictures are painted on a page."""
    contents = page.get_contents()
    assert contents is not None
    return len(re.findall(rb"/\S+ Do\b", contents.get_data()))
