"""The check table of a PDF."""

import math
from dataclasses import replace

from tests.handout.pdf.conftest import RESULTS, Make, links, pages, printed, text


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
