"""What the pages of a PDF say, and where its links and contents lead."""

import pytest

from tests.handout.pdf.conftest import Make, links, pages, pdf_of, printed, text


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
