"""How the text of a cell becomes lines, and the source of a PDF becomes files."""

from ci.handout import pdf


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
