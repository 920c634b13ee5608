"""The table of findings that `invoke doctor` prints."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from ci.doctor.diagnosis import Finding, Verdict, usable_place
from ci.report.console import PatientConsole

COLOURS = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "red",
    Verdict.ABSENT: "dim",
}


def show(findings: Iterable[Finding]) -> list[Finding]:
    """Print the findings in one table, when all are there, and return them."""
    console = PatientConsole()
    with console.status("examining the machine"):
        found = list(findings)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for place in dict.fromkeys(finding.place for finding in found):
        table.add_row(Text(f"\n{place}", "bold"))
        for finding in found:
            if finding.place == place:
                verdict = Text(finding.verdict, COLOURS[finding.verdict])
                table.add_row(f"  {finding.subject}", verdict, str(finding))
    console.print(table, f"\nthe course can run {usable_place(found) or 'at none of these places'}")
    return found
