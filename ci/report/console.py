"""The console of the commands: plain text without markup, for a terminal or a pipe."""

from typing import Any

from rich.console import Console

from ci.command_line import go_on_unread


class PatientConsole(Console):
    """A console that goes on, unread, when the reader of its pipe has ended: `| head -1`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Print nothing more; the reports and the exit status still say how the run ended."""
        self.quiet = True
        go_on_unread()
