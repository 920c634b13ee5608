"""The handouts on an address of this machine, for a browser: `invoke serve`."""

import contextlib
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ci.errors import CourseError, UsageError
from ci.handout.editions import INSTRUCTORS, STUDENTS, Edition
from ci.machine import port

SUFFIXES = {".html", ".pdf", ".ipynb", ".zip", ".json"}  # nothing else is served


def parse_edition(word: str) -> Edition:
    """Read the value of `--edition`: students or instructors. Raises UsageError."""
    editions = {"students": STUDENTS, "instructors": INSTRUCTORS}
    if word not in editions:
        raise UsageError(f"--edition {word}: expected {' or '.join(editions)}")
    return editions[word]


def serve_edition(edition: str, port_text: str, build: Path) -> Iterator[str]:
    """Serve what `--edition` and `--port` name, as `serve` does. Raises UsageError too."""
    yield from serve(build / parse_edition(edition).folder, port.parse(port_text))


def serve(folder: Path, number: int) -> Iterator[str]:
    """Serve `folder` on a port of 127.0.0.1 until interrupted; yields one line with the address.

    Raises CourseError if nothing was published there, MachineError if the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise CourseError(f"{folder}: there are no handouts yet: invoke run makes them")
    port.require_free(number)
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer((port.ADDRESS, number), handler) as server:
        yield f"http://{port.ADDRESS}:{number}/ shows {folder}/; Ctrl-C ends it"
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


class _Handler(SimpleHTTPRequestHandler):
    """Serves the handouts, but neither to other host names nor through links out of the folder."""

    server: ThreadingHTTPServer
    extensions_map = {  # noqa: RUF012  # the base class has a dict
        ".html": "text/html; charset=utf-8",
        ".ipynb": "application/x-ipynb+json",
    }

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Check the request first, since a page elsewhere can give this machine its own name."""
        address = f":{self.server.server_port}"
        if self.headers.get("Host") not in (port.ADDRESS + address, "localhost" + address):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif not self._is_handout():
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return super().send_head()
        return None

    def _is_handout(self) -> bool:
        try:
            path = Path(self.translate_path(self.path)).resolve()
            path = path / "index.html" if path.is_dir() else path
            inside = path.is_relative_to(Path(self.directory).resolve())
            return inside and path.suffix in SUFFIXES and path.is_file()
        except (OSError, ValueError):  # the name is too long, or contains a zero byte
            return False

    def end_headers(self) -> None:
        """Keep browsers from guessing types and from showing the handouts of an earlier run."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
