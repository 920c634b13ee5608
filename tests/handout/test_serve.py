"""The handouts over HTTP: which files are served, to which host names, and how it ends."""

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci.errors import CourseError, MachineError, UsageError
from ci.handout import serve
from ci.handout.editions import INSTRUCTORS, STUDENTS

PROGRAM = """
import sys
from pathlib import Path
from ci.handout.serve import serve
for line in serve(Path(sys.argv[1]), int(sys.argv[2])):
    print(line, flush=True)
"""


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    line: str

    def get(self, path: str, host: str = "", method: str = "GET") -> http.client.HTTPResponse:
        """The answer to a request for exactly this path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        connection.endheaders()
        return connection.getresponse()


@contextlib.contextmanager
def serving(parent: Path) -> Iterator[Served]:
    """Serve a folder of handouts with a secret beside it, until the end of the block."""
    folder = parent / "handouts"
    (folder / "en").mkdir(parents=True)
    (folder / "index.html").write_text("the course", "utf-8")
    for ending in ("html", "pdf", "ipynb"):
        (folder / "en" / f"01_one.{ending}").write_text(ending, "utf-8")
    (folder / "handouts.zip").write_bytes(b"zip")
    (folder / ".hidden").write_text("hidden", "utf-8")
    (folder / "script.js").write_text("alert(1)", "utf-8")
    (parent / "secret.html").write_text("secret", "utf-8")
    (folder / "link.html").symlink_to(parent / "secret.html")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield Served(process, folder, port, process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for tests that change nothing."""
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A server for one test."""
    with serving(tmp_path) as own:
        yield own


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/", "text/html; charset=utf-8", b"the course"),
        ("/index.html", "text/html; charset=utf-8", b"the course"),
        ("/en/01_one.html", "text/html; charset=utf-8", b"html"),
        ("/en/01_one.pdf", "application/pdf", b"pdf"),
        ("/en/01_one.ipynb", "application/x-ipynb+json", b"ipynb"),
        ("/handouts.zip", "application/zip", b"zip"),
    ],
)
def test_each_handout_has_its_content_type(
    served: Served, path: str, kind: str, content: bytes
) -> None:
    """And the browser must not guess another type."""
    answer = served.get(path)

    assert (answer.status, answer.getheader("Content-Type")) == (200, kind)
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.read() == content


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/en/../../secret.html",
        "/%2e%2e/secret.html",
        "/..%2fsecret.html",
        "//secret.html",
        "/link.html",
        "/.hidden",
        "/script.js",
        "/en/",
        "/nothing.html",
        "/%00",
        "/" + "a" * 5000,
    ],
)
def test_everything_else_is_not_found(served: Served, path: str) -> None:
    """Paths and links out of the folder, other types of files, and listings of folders."""
    answer = served.get(path)

    assert answer.status == 404
    assert b"secret" not in answer.read()


def test_another_name_for_this_machine_is_refused(served: Served) -> None:
    """Otherwise a page elsewhere could give this address its own name, and read the solutions."""
    assert served.get("/", host=f"evil.example:{served.port}").status == 421
    assert served.get("/", host=f"localhost:{served.port}").status == 200


def test_nothing_can_be_written(served: Served) -> None:
    """The server answers only requests to read."""
    assert served.get("/index.html", method="PUT").status == 501
    assert served.get("/index.html", method="DELETE").status == 501


def test_the_next_run_is_seen_at_once(own: Served) -> None:
    """A run replaces the folder as a whole."""
    new = own.folder.with_name("new")
    new.mkdir()
    (new / "index.html").write_text("a new course", "utf-8")
    own.folder.rename(own.folder.with_name("old"))
    new.rename(own.folder)

    assert own.get("/").read() == b"a new course"


def test_it_can_not_be_reached_from_the_network(served: Served) -> None:
    """It listens only on 127.0.0.1."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)


def test_an_interrupt_ends_it_quietly(own: Served) -> None:
    """Ctrl-C is how a user ends it."""
    assert own.get("/").status == 200  # it serves by now
    own.process.send_signal(signal.SIGINT)
    rest, _ = own.process.communicate(timeout=30)

    assert (own.process.returncode, rest) == (0, "")
    assert f"http://127.0.0.1:{own.port}/ shows {own.folder}/" in own.line


def test_there_must_be_handouts(tmp_path: Path) -> None:
    """Otherwise the message says how they are made."""
    with pytest.raises(CourseError, match="there are no handouts yet: invoke run makes them"):
        next(serve.serve(tmp_path, 8000))


def test_a_taken_port_is_the_machines_fault(served: Served) -> None:
    """The server that has the port goes on."""
    with pytest.raises(MachineError, match=f"port {served.port}"):
        next(serve.serve(served.folder, served.port))
    assert served.get("/").status == 200


def test_an_edition_has_a_name() -> None:
    """A misspelt name never shows the instructors' edition."""
    assert serve.parse_edition("students") is STUDENTS
    assert serve.parse_edition("instructors") is INSTRUCTORS
    with pytest.raises(UsageError, match="--edition student: expected students or instructors"):
        serve.parse_edition("student")
