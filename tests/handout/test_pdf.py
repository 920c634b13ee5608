"""A handout on paper: what a reader, a printer, a screen reader and poppler find in the PDF."""

import base64
import io
import math
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pypdf
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ci.errors import CourseError
from ci.handout import pdf
from ci.handout.exporters import HandoutPDFExporter
from ci.handout.handout import Handout, prepare
from ci.judge.outcome import Outcome, Result
from ci.lesson import reader
from ci.lesson.lesson import Check, Lesson
from ci.plan.planner import Run

LESSON = """\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown] lang="en"
# # Gradients
#
# An English sentence about **slopes**, $\\nabla f \\odot x$, and its
# [documentation](https://docs.pytorch.org/docs/stable/autograd.html) at <https://pytorch.org/>.
#
# ## Derive it
#
# | a | b |
# |---|---|
# | 1 | $x_2$ |

# %% [markdown] lang="zh"
# # 梯度
#
# 一句关于**斜率**的中文，$\\nabla f \\odot x$。
#
# ## 推导

# %% check="gradient"
2 * size

# %% given="draws"
draws

# %% raises="ValueError"
int("x")

# %% tags=["figure"]
drawn_by_this_line()

# %% [markdown] lang="en"
# **Figure.** The slope of $x^2$ at `x`, **rising**.

# %% [markdown] lang="zh"
# **图**。$x^2$ 的斜率。

# %%
print("hello")
"""

RESULTS = (
    Result(
        Check("gradient", "value", "cell-2", 20),
        "verified",
        shown="8.0",
        expected="8.000001",
        derivation="dy/dx = 2 `size`.",
        tolerance="2e-6 rel",
        margin=0.25,
        devices=("cpu",),
    ),
    Result(Check("draws", "given", "cell-3", 23), "given", shown="[7 7]"),
    Result(
        Check("raises_at_line_26", "raises", "cell-4", 26, "ValueError"),
        "verified",
        shown="ValueError",
        expected="ValueError",
        derivation="The cell must raise ValueError.",
        tolerance="exact",
        margin=0.0,
    ),
)
FACTS = {"torch": "2.13.0+cpu", "device": "cpu (a small one)", "date": "2026-11-23 21:05 UTC"}
RIGHT = 595.28 - 50  # points: A4 less the margin
Make = Callable[..., Handout]


def png() -> str:
    """A red picture, 400 by 200."""
    parts = [
        (b"IHDR", struct.pack(">2I5B", 400, 200, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * 400) * 200)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def text(content: str) -> NotebookNode:
    """An output of a print."""
    return new_output("stream", text=content)


def shown(kind: str, content: str) -> NotebookNode:
    """A displayed output."""
    return new_output("display_data", {kind: content})


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """The lesson above, read."""
    path = tmp_path / "lessons" / "03_gradients.py"
    path.parent.mkdir()
    path.write_text(LESSON, encoding="utf-8")
    return reader.read(path)


@pytest.fixture
def make(lesson: Lesson) -> Make:
    """A handout of the lesson; `outputs` are those of its last cell."""

    def make(
        *outputs: NotebookNode, results: Sequence[Result] = RESULTS, **changes: Any
    ) -> Handout:
        code = [cell for cell in lesson.notebook.cells if cell.cell_type == "code"]
        code[0].outputs = [new_output("execute_result", {"text/plain": "tensor(8.)"})]
        lines = ["Cell In[3], line 1", '----> 1 int("x")', "", "ValueError: no number"]
        code[2].outputs = [
            new_output("error", ename="ValueError", evalue="no number", traceback=lines)
        ]
        code[3].outputs = [shown("image/png", png())]
        code[4].outputs = list(outputs) or [text("hello\n")]
        run = Run(lesson, {})
        outcome = Outcome(run, "verified", tuple(results), notebook=lesson.notebook)
        return replace(Handout(outcome, FACTS), **changes)

    return make


def pdf_of(made: Handout | NotebookNode, language: str = "en") -> bytes:
    """The PDF of a handout, or of any notebook."""
    prepared = prepare(made, language) if isinstance(made, Handout) else made
    return HandoutPDFExporter().from_notebook_node(prepared)[0]


def printed(made: Handout | NotebookNode, language: str = "en") -> pypdf.PdfReader:
    """The PDF, to look inside."""
    return pypdf.PdfReader(io.BytesIO(pdf_of(made, language)))


def pages(read: pypdf.PdfReader) -> list[str]:
    """The words of each page, in one line."""
    return [" ".join(page.extract_text().split()) for page in read.pages]


def prose(*texts: str) -> NotebookNode:
    """A notebook of Markdown cells alone, which is no lesson."""
    return new_notebook(cells=[new_markdown_cell(text) for text in ("# Mine", *texts)])


def poppler_says(command: str, content: bytes, folder: Path, *options: str) -> str:
    """What a tool of poppler prints of a PDF; what it complains of fails the test."""
    path = folder / "handout.pdf"
    path.write_bytes(content)
    line = [command, *options[:-1], str(path), *options[-1:]]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def tags(read: pypdf.PdfReader) -> Iterator[tuple[str, str]]:
    """The structure of a PDF in its order: each kind, and the words for who can't see it."""
    waiting = [read.root_object["/StructTreeRoot"]]
    while waiting:
        node = waiting.pop().get_object()
        if isinstance(node, pypdf.generic.DictionaryObject):
            yield str(node.get("/S", ""))[1:], str(node.get("/Alt", ""))
            children = node.get("/K", [])
            children = children if isinstance(children, list) else [children]
            waiting += reversed(children)


def links(read: pypdf.PdfReader) -> list[tuple[int, int]]:
    """Of each link within the PDF: the page that it is on, and the page that it leads to."""
    found = []
    for number, page in enumerate(read.pages):
        for annotation in page.get("/Annots", []):
            if (target := annotation.get_object().get("/Dest")) is not None:
                place = read.named_destinations[target] if isinstance(target, str) else target
                goal = place["/Page"] if isinstance(target, str) else place.get_object()[0]
                found.append((number, read.get_page_number(goal.get_object())))
    return found


# What every page says


@pytest.mark.parametrize(
    ("language", "title", "head"),
    [("en", "Gradients", "PyTorch course · English"), ("zh", "梯度", "PyTorch 课程 · 中文")],
)
def test_each_page_says_lesson_language_and_number(
    make: Make, language: str, title: str, head: str
) -> None:
    """A page that lies alone on a desk is known, and so is whether its values were verified."""
    texts = pages(printed(make(text("line\n" * 150)), language))
    assert len(texts) > 2
    for number, page in enumerate(texts):
        assert head in page
        assert title in page
        assert "✓" in page
        assert f"{number + 1} / {len(texts)}" in page


def test_the_pdf_can_be_searched_in_its_language(make: Make) -> None:
    """Chinese and English words are text in it, the other language's prose is not."""
    chinese, english = " ".join(pages(printed(make(), "zh"))), " ".join(pages(printed(make())))
    assert "一句关于斜率的中文" in chinese
    assert "检查项" in chinese
    assert "English sentence" not in chinese
    assert "An English sentence about slopes" in english
    assert "tensor(8.)" in english


def test_the_pdf_says_title_language_and_date(make: Make) -> None:
    """The date is the run's, so that the same notebook makes the same file."""
    read = printed(make(), "zh")
    assert read.metadata is not None
    assert read.metadata.title == "梯度"
    assert str(read.metadata.get("/CreationDate")).startswith("D:20261123210500")
    assert read.root_object["/Lang"] == "zh-CN"
    assert pdf_of(make(), "zh") == pdf_of(make(), "zh")


def test_the_first_page_names_run_and_sections(make: Make) -> None:
    """Below the title: versions, device, date, the verdict, and the contents with their pages."""
    first = pages(printed(make()))[0]
    assert "PyTorch 2.13.0+cpu · cpu (a small one) · 2026-11-23 21:05 UTC" in first
    assert "✓ 2 values verified, 1 printed output not compared" in first
    for section in ("Derive it 1", "Checks", "Environment", "Code of the figures"):
        assert section in first.partition("Contents")[2].partition("An English")[0]


def test_the_contents_lead_to_their_pages_and_so_do_bookmarks(make: Make) -> None:
    """Each section is a link on the first page and an entry of the reader's side bar."""
    read = printed(make(text("line\n" * 150)))
    title, sections = read.outline
    assert title.title == "Gradients"
    found = [
        (entry.title, read.get_destination_page_number(entry))
        for entry in sections
        if not isinstance(entry, list)
    ]
    names = [name for name, _ in found]
    assert names == ["Derive it", "Checks", "Environment", "Code of the figures"]
    assert found[1][1] > 1
    assert {(0, page) for _, page in found} <= set(links(read))


# For who can't see it


def test_the_pdf_is_tagged_for_screen_readers(make: Make) -> None:
    """Headings, lists, tables, code, links are marked as what they are; it claims PDF/UA."""
    read = printed(make())
    kinds = [kind for kind, _ in tags(read)]
    assert {"TOC", "P", "Code", "Table", "TH", "TD", "Figure", "Caption", "Link"} <= set(kinds)
    assert [kind for kind in kinds if re.fullmatch(r"H\d", kind)] == [
        *("H1", "H2", "H2", "H3", "H3", "H2", "H2")
    ]
    assert read.root_object["/MarkInfo"]["/Marked"]
    assert b"<pdfuaid:part>1<" in read.root_object["/Metadata"].get_data()


def test_figures_and_formulas_have_words(make: Make) -> None:
    """A figure has its caption's, without Markdown; a formula its TeX."""
    texts = [(kind, alt) for kind, alt in tags(printed(make())) if alt]
    assert ("Figure", "Figure. The slope of x² at x, rising.") in texts
    assert ("Formula", r"\nabla f \odot x") in texts
    assert ("Figure", "图。x² 的斜率。") in list(tags(printed(make(), "zh")))


def test_a_figure_without_a_caption_says_so(make: Make) -> None:
    """There is always something to hear."""
    made = make(shown("image/png", png()))
    assert ("Figure", "Figure, described in the text") in list(tags(printed(made)))


def test_a_notebook_that_skips_headings_does_not_claim_to_be_accessible() -> None:
    """It is set all the same."""
    read = printed(prose("### Deep"))
    assert b"pdfuaid" not in read.root_object["/Metadata"].get_data()
    assert "Deep" in pages(read)[0]


# For printers and programs


@pytest.mark.usefixtures("poppler")
def test_poppler_finds_nothing_wrong(make: Make, tmp_path: Path) -> None:
    """Not one complaint, and it sees that the file is tagged and A4."""
    output = poppler_says("pdfinfo", pdf_of(make()), tmp_path)
    assert re.search(r"Tagged: +yes", output)
    assert re.search(r"Page size: +595\S* x 841\S* pts \(A4\)", output)


@pytest.mark.usefixtures("poppler")
def test_all_fonts_are_embedded_and_can_be_searched(make: Make, tmp_path: Path) -> None:
    """In both languages each has its glyphs and its characters in the file."""
    for language in ("en", "zh"):
        _, _, *fonts = poppler_says("pdffonts", pdf_of(make(), language), tmp_path).splitlines()
        assert len(fonts) >= 4
        for font in fonts:
            embedded, _, searchable = font.split()[-5:-2]
            assert (embedded, searchable) == ("yes", "yes"), font


def test_chinese_has_a_real_bold_face(make: Make) -> None:
    """Two instances of the variable font are embedded, none is slanted or smeared."""
    fonts = {
        font.get_object()["/BaseFont"]
        for page in printed(make(), "zh").pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert len([name for name in fonts if "NotoSansSC" in name]) == 2


# What breaks, and where


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


# The check table, the figures' code, addresses


def test_the_check_table_says_what_was_compared_and_where(make: Make) -> None:
    """Why, shown, expected, tolerance, margin, device, page; a given is no verified value."""
    read = printed(make(text("line\n" * 150)))
    table = (
        " ".join(pages(read))
        .partition("is the share of the tolerance")[2]
        .partition("Environment")[0]
    )
    for value in (
        *("✓ gradient page 1", "dy/dx = 2 size.", "shown 8.0 expected 8.000001"),
        *("25 % of 2e-6 rel · cpu", "exact", "The cell must raise ValueError."),
    ):
        assert value in table
    assert table.index("given, not verified") < table.index("○ draws") < table.index("shown [7 7]")
    assert "expected" not in table.partition("given, not verified")[2]


def test_claims_lead_to_their_cells_and_back(make: Make) -> None:
    """A mark beside a value leads to its row, the row's name and page number to the cell."""
    read = printed(make(text("line\n" * 150)))
    [table] = [number for number, page in enumerate(pages(read)) if "dy/dx" in page]
    found = links(read)
    assert found.count((table, 0)) >= 2 * len(RESULTS)
    assert found.count((0, table)) >= len(RESULTS)


def test_what_was_not_verified_says_so_on_every_page(make: Make) -> None:
    """In the check table with its reason, beside the value, and at the foot of each page."""
    bad = replace(RESULTS[0], status="differs", message="largest difference 1", margin=math.inf)
    texts = pages(printed(make(text("line\n" * 150), results=(bad, *RESULTS[1:]))))
    assert all("✗ 1 of 3 checks NOT verified" in page for page in texts)
    assert "✗ gradient · mismatch" in texts[0]
    assert "mismatch: largest difference 1" in " ".join(texts[1:])


def test_the_code_of_figures_stands_at_the_end(make: Make) -> None:
    """The figure names its page; there, the figure's page is named."""
    read = printed(make(text("line\n" * 150)))
    texts, last = pages(read), len(read.pages)
    assert "drawn_by_this_line()" not in " ".join(texts[:-1])
    assert "for page 1 drawn_by_this_line()" in texts[-1]
    assert f"rising. code: page {last}" in texts[0]
    assert {(0, last - 1), (last - 1, 0)} <= set(links(read))


def test_the_address_of_a_link_can_be_read(make: Make) -> None:
    """At the foot of its page, unless the text is the address."""
    [first, *_] = pages(printed(make()))
    assert first.count("https://docs.pytorch.org/docs/stable/autograd.html") == 1
    assert first.count("https://pytorch.org/") == 1


# What is hostile


def test_hostile_content_is_text(make: Make) -> None:
    """Typst's markup, HTML and control characters are printed as they are, or left out."""
    hostile = '#panic("x") $ *a* @b <c> \\ " ` ] } // d #eval("1") <script>e</script>'
    prepared = prepare(make(text(hostile + "\0\x07\x1b[31m"), text("ok")), "en")
    prepared.cells[-1].source = f"'''{hostile}'''"
    prepared.cells.append(new_markdown_cell(hostile.replace("$", "\\$")))
    error = new_output("error", ename="#x", evalue=hostile, traceback=[f"#x: {hostile}"])
    prepared.cells.append(new_code_cell("1", outputs=[error]))
    prepared.metadata.handout.rows[0].shown = hostile
    prepared.metadata.handout.rows[0].derivation = hostile
    prepared.metadata.handout.provenance["machine"] = hostile
    prepared.metadata.handout.notes = [hostile]
    prepared.metadata.handout.title = hostile
    text_on_paper = " ".join(pages(printed(prepared)))
    assert text_on_paper.count('#panic("x") $') >= 8
    assert text_on_paper.count("<script>e</script>") >= 8


def test_words_from_the_right_stay_and_hidden_turns_are_shown(make: Make) -> None:
    """Arabic is set; a character that would turn code around is named."""
    text_on_paper = " ".join(pages(printed(make(text("سلام"), text("a\u202eb")))))
    assert "<U+202E>" in text_on_paper
    assert re.search("[\u0600-\u06ff\ufe70-\ufeff]{4}", text_on_paper)


def test_hostile_headings_in_outputs_break_nothing(make: Make) -> None:
    """Markdown that a cell shows is rendered, even if it skips levels."""
    read = printed(make(shown("text/markdown", "##### Deep\n\n# Again")))
    assert "Deep Again" in " ".join(pages(read))


def test_a_character_without_a_glyph_is_an_error_with_its_cell(make: Make) -> None:
    """No empty box gets into a handout."""
    with pytest.raises(CourseError, match=r"03_gradients.py:\d+: no font .* 𓀀 \(U\+13000\)"):
        pdf_of(make(text("a 𓀀")))


def test_a_broken_picture_is_an_error_with_its_cell(make: Make) -> None:
    """A refusal of Typst is explained in one message, not as a traceback."""
    with pytest.raises(CourseError, match="03_gradients.py:44: Typst can't set it"):
        pdf_of(make(shown("image/png", "aGVsbG8=")))


# Lines


def test_folded_lines_fit_and_say_where() -> None:
    """A mark begins what was folded; Chinese characters take two columns."""
    lines = pdf.fold("ab " * 50 + "中" * 100, 40).split("\n")
    assert all(sum(2 if "一" <= c <= "龥" else 1 for c in line) <= 40 for line in lines)
    assert all(line.startswith("↪") for line in lines[1:])
    assert "".join(line.lstrip("↪") for line in lines) == "ab " * 50 + "中" * 100


def test_short_lines_are_not_folded() -> None:
    """What fits stays as it is."""
    assert pdf.fold("a\nb" + "x" * 39, 40) == "a\nb" + "x" * 39


def test_a_mark_never_covers_what_is_shown() -> None:
    """Where the last line is too long for a mark at its right, the mark has a line of its own."""
    assert pdf.beside("short\nlast", 10) == "short\nlast"
    assert pdf.beside("short\n" + "x" * 11, 10) == "short\n" + "x" * 11 + "\n "


def test_cells_are_files_that_editions_share() -> None:
    """Typst sets a file only once, so what is before a cell is not part of its file."""
    students, cells = pdf.in_files("a\x1e= One\x1e= Two")
    instructors, others = pdf.in_files("b\x1e= New\x1e= One\x1e= Two")
    assert len(cells) == 2
    assert len(others.keys() - cells.keys()) == 1
    assert [*map(students.index, cells)] == sorted(map(students.index, cells))
    assert students.split("#include")[1:] == instructors.split("#include")[2:]


def test_no_text_begins_a_part() -> None:
    """The character between parts is removed from literals."""
    assert pdf.PART not in pdf.literal(f"a{pdf.PART}b")
