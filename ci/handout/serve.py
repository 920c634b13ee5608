"""The handouts at an address of this machine, as a browser wants them: `invoke serve`."""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from ci import port
from ci.errors import CourseError, UsageError
from ci.handout.editions import INSTRUCTORS, STUDENTS, Edition

TYPES = {  # what handouts consist of; nothing else is served
    ".html": "text/html; charset=utf-8",
    ".pdf": "application/pdf",
    ".ipynb": "application/x-ipynb+json",
    ".zip": "application/zip",
    ".json": "application/json",
}


def parse_edition(word: str) -> Edition:
    """Read the value of `--edition`: students or instructors. Raises UsageError."""
    names = {"students": STUDENTS, "instructors": INSTRUCTORS}
    if word not in names:
        raise UsageError(f"--edition {word}: there are {' and '.join(names)}")
    return names[word]


def serve(folder: Path, number: int) -> Iterator[str]:
    """Serve `folder` on a port of 127.0.0.1 until interrupted; yields the line to be said.

    Raises CourseError where nothing was published there, MachineError where the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise CourseError(f"{folder}: there are no handouts yet: invoke run makes them")
    port.require_free(number)
    with _Server((port.ADDRESS, number), _Handler, folder) as server:
        yield f"http://{port.ADDRESS}:{number}/ shows {folder}/; Ctrl-C ends it"
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


class _Server(ThreadingHTTPServer):
    """A thread a request, so that a slow reader keeps nobody waiting."""

    def __init__(self, address: tuple[str, int], handler: type[Any], folder: Path) -> None:
        super().__init__(address, handler)
        self.folder = folder
        self.names = {f"{name}:{address[1]}" for name in (port.ADDRESS, "localhost")}


class _Handler(SimpleHTTPRequestHandler):
    """Answers for files of the folder alone, whatever the path says and wherever links lead."""

    server: _Server
    extensions_map = TYPES

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(arguments[2].folder))

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Refuse what is not ours to give; else as the library does."""
        if self.headers.get("Host") not in self.server.names:  # another name for this machine
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        if not self._ours():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _ours(self) -> bool:
        try:
            folder = self.server.folder.resolve()
            path = Path(self.translate_path(self.path)).resolve()
            path = path / "index.html" if path.is_dir() else path
            return path.is_relative_to(folder) and path.suffix in TYPES and path.is_file()
        except (OSError, ValueError):  # too long a name, or a zero byte in it
            return False

    def end_headers(self) -> None:
        """What is served is what its type says, and is as new as the last run."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: nobody reads along."""
