"""`invoke lab` as a student uses it: JupyterLab in a container, and requests like a browser's.

One engine has no bridge, so that the lab shares this machine's network. The other one has a
bridge, and runs in a network namespace of its own.
"""

import asyncio
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from ci.errors import CourseError, MachineError
from ci.jupyterlab import copies, server
from ci.lab import containers, docker_engine, image
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from tests.conftest import DOCKER, EXERCISE, ROOT, Write, missing

START = ROOT / "tests/engine/start"
LESSON = "03_autograd.py"


@dataclass(frozen=True)
class Engine:
    """A Docker engine, and a thread in the network where it publishes ports."""

    host: str
    thread: ThreadPoolExecutor

    def docker(self, *words: str) -> str:
        """The output of a `docker` command."""
        command = ["docker", *(["--host", self.host] if self.host else []), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def containers(self, process: subprocess.Popen[str]) -> list[str]:
        """The names of the containers, running or not, that a process has made."""
        shown = "{{.Names}} {{.Labels}}"
        rows = self.docker(
            "ps", "--all", "--filter", f"label={containers.OWNER}", "--format", shown
        )
        mine = re.compile(rf"(\S+) .*{re.escape(containers.OWNER)}=[^,]* {process.pid} ")
        return [found[1] for row in rows.splitlines() if (found := mine.match(row))]


@dataclass
class Served:
    """An open lab."""

    engine: Engine
    process: subprocess.Popen[str]
    output: str
    url: str
    token: str

    def ask(self, path: str, *, token: str | None = None, **request: Any) -> tuple[int, Any]:
        """The status and answer of a request for `path`, by default with the token."""
        word = self.token if token is None else token
        headers = {"Authorization": f"token {word}"} if word else {}
        return self.engine.thread.submit(_ask, self.url + path, headers, **request).result()

    def execute(self, code: str) -> str:
        """What `code` prints in a new kernel."""
        kernel = self.ask("/api/kernels", method="POST", data={"name": "python3"})[1]["id"]
        url = f"{self.url.replace('http', 'ws')}/api/kernels/{kernel}/channels?token={self.token}"
        return self.engine.thread.submit(lambda: asyncio.run(_execute(url, code))).result()

    def end(self, number: int) -> tuple[int, str]:
        """Exit status after a signal, and all that was output."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Exit status and all that was output, once it has ended."""
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, self.output + rest

    def containers(self) -> list[str]:
        """The names of its containers, running or not."""
        return self.engine.containers(self.process)


def _ask(
    url: str, headers: dict[str, str], method: str = "GET", data: Any = None
) -> tuple[int, Any]:
    body = None if data is None else json.dumps(data).encode()
    try:
        with urlopen(Request(url, body, headers, method=method), timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except HTTPError as error:
        with error:
            return error.code, None


async def _execute(url: str, code: str) -> str:
    """Send a request in the kernel's protocol; collect its output until the kernel is idle."""
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "session": message, "version": "5"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    channels = await websocket_connect(HTTPRequest(url, connect_timeout=30))
    await channels.write_message(json.dumps({**request, "channel": "shell"}))
    printed, state = "", ""
    while state != "idle":
        text = await asyncio.wait_for(channels.read_message(), 120)
        assert text, "the server closed the connection"
        answer = json.loads(text)
        if answer["parent_header"].get("msg_id") == message:
            printed += answer["content"].get("text", "") + answer["content"].get("evalue", "")
            state = answer["content"].get("execution_state", "")
    channels.close()
    while await channels.read_message():  # messages under way; None is the end
        pass
    return printed


@pytest.fixture(scope="session")
def host_engine(lab_image: Image) -> Iterator[Engine]:
    """The tests' own engine, without a bridge."""
    with connect() as client:
        if any(network.name == "bridge" for network in client.networks.list()):
            missing("an engine without a bridge, as tests/engine/start --bridge=none starts it")
    with ThreadPoolExecutor(1) as thread:
        yield Engine(os.environ.get("DOCKER_HOST", ""), thread)


@pytest.fixture(scope="session")
def bridge_engine(lab_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with a bridge in a network namespace of its own, where it can filter packets."""
    if os.getuid() != 0 or not shutil.which("iptables"):
        missing("root and iptables")
    folder = tmp_path_factory.mktemp("bridge")
    inside = ["unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "bash"]
    subprocess.run([*inside, str(START), str(folder), "--no-hook"], check=True)
    daemon = psutil.Process(int((folder / "pid").read_text()))

    def enter() -> None:
        with Path(f"/proc/{daemon.pid}/ns/net").open() as network:
            assert ctypes.CDLL(None).setns(network.fileno(), 0) == 0

    try:
        with ThreadPoolExecutor(1, initializer=enter) as thread:
            engine = Engine(f"unix://{folder}/docker.sock", thread)
            save = ["docker", "save", lab_image.name]
            with subprocess.Popen(save, stdout=subprocess.PIPE) as saved:
                load = ["docker", "--host", engine.host, "load", "--quiet"]
                subprocess.run(load, stdin=saved.stdout, check=True)
            yield engine
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["host_engine", "bridge_engine"])
def served(
    request: pytest.FixtureRequest, lab_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A lab on each engine; tests leave it unchanged."""
    engine = request.getfixturevalue(request.param)
    opened = opened_lab(engine, a_course(tmp_path_factory.mktemp("course")))
    yield opened
    assert opened.end(signal.SIGINT)[0] == 0


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """The project's lessons, tasks and docker/, in a folder of their own."""
    return a_course(tmp_path)


def a_course(folder: Path) -> Path:
    """Copy the project into `folder`, without its builds."""
    shutil.copy(ROOT / "tasks.py", folder)
    shutil.copytree(ROOT / "lessons", folder / "lessons")
    shutil.copytree(DOCKER, folder / "docker", ignore=shutil.ignore_patterns("wheels"))
    return folder


OPENED: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """End the labs of tests that failed."""
    yield
    for process in OPENED:
        process.terminate()
        process.communicate(timeout=60)


def opened_lab(engine: Engine, course: Path, port: int = 0) -> Served:
    """`invoke lab`, once it has output where."""
    process = engine.thread.submit(invoke, engine, course, port).result()
    OPENED.append(process)
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("http"):
            parts = urlsplit(line.strip())
            url, token = f"http://{parts.netloc}", parse_qs(parts.query)["token"][0]
            return Served(engine, process, output, url, token)
    raise AssertionError(output)


def free_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def invoke(engine: Engine, course: Path, port: int = 0) -> subprocess.Popen[str]:
    """Start `invoke lab` with this interpreter, by default at a free port."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "invoke",
            "lab",
            "--gpus",
            "none",
            "--port",
            str(port or free_port()),
        ],
        cwd=course,
        env={**os.environ, **({"DOCKER_HOST": engine.host} if engine.host else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_lab_gets_no_solution(write: Write, tmp_path: Path) -> None:
    """Nor a file that might contain one; packages and data are there."""
    lessons = write(EXERCISE, expected="").parent
    for name in ("01_small.py~", "01_small.ipynb", ".01_small.py.swp", "data.csv", "own/a.py"):
        (lessons / name).parent.mkdir(exist_ok=True)
        (lessons / name).write_text("" if name[0] in "do" else EXERCISE)
    given = server.blank_solutions(lessons, tmp_path / ".lessons")
    assert sorted(path.name for path in given) == ["01_small.py", "data.csv", "own"]
    assert b"onehalf" not in (tmp_path / ".lessons/01_small.py").read_bytes()


def test_a_students_copy_has_the_blank(write: Write, tmp_path: Path) -> None:
    """The copy follows the blanked lesson when that changes."""
    lessons = write(EXERCISE, expected="").parent
    for task in ("Halve 0", "Cut 0"):
        write(EXERCISE.replace("Halve 0", task), expected="")
        server.blank_solutions(lessons, tmp_path / ".lessons")
        assert copies.update(tmp_path / ".lessons", tmp_path / "mine") == []
        copied = b"".join(p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file())
        assert b"onehalf" not in copied
        assert b"halves = ..." in copied
        assert task.encode() in copied


def test_a_lesson_that_may_hide_a_solution_opens_no_lab(write: Write, tmp_path: Path) -> None:
    """A misspelt tag is named before any script is written."""
    lessons = write(EXERCISE.replace('"solution"', '"solutions"'), expected="").parent
    with pytest.raises(CourseError, match="did you mean 'solution'"):
        server.blank_solutions(lessons, tmp_path / ".lessons")
    assert not list((tmp_path / ".lessons").glob("*.py"))


@dataclass
class Broken:
    """A container whose output ends in an error."""

    error: type[Exception]

    def lines(self) -> Iterator[str]:
        """One line."""
        yield "starting\n"
        raise self.error

    def ending(self) -> str:
        """As the engine's silence is reported."""
        return "is gone, or the engine is"

    def close(self) -> None:
        """Nothing is left to close."""


Opened = Callable[..., Any]


@pytest.fixture
def opened(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """The lines of `invoke lab`, and the command and options of its container.

    The caller is an ordinary user, the engine is a replacement, and the container is `Broken`.
    """
    lessons = write().parent

    def opened(
        *security: str, bridge: bool = True, error: type[Exception] = ConnectionResetError
    ) -> Any:
        networks = [SimpleNamespace(name="bridge")] if bridge else []
        client = SimpleNamespace(
            info=lambda: {"MemTotal": 2**30, "SecurityOptions": security},
            networks=SimpleNamespace(list=lambda: networks),
            containers=SimpleNamespace(list=lambda **_: []),
        )
        started: list[Any] = []

        def start(image: str, command: list[str], options: dict[str, Any]) -> Broken:
            started.extend([command, options])
            return Broken(error)

        monkeypatch.setattr(threading, "excepthook", lambda _: None)  # it would fail the test
        monkeypatch.setattr(os, "getuid", lambda: 4000)
        monkeypatch.setattr(docker_engine, "connect", lambda: nullcontext(client))
        monkeypatch.setattr(image, "find", lambda *_: Image("image", "sha256:1", "cpu"))
        monkeypatch.setattr(containers, "Container", start)
        folder, port = tmp_path / "lab", str(free_port())
        lines: list[str] = []
        try:
            for line in server.serve(lessons, folder, DOCKER, port=port, gpus="none"):
                lines.append(line)
        except MachineError as fault:
            lines.append(str(fault))
        for thread in threading.enumerate():
            if "read_ahead" in thread.name:
                thread.join()
        return lines, *started

    return opened


@pytest.mark.parametrize("error", [ConnectionResetError, ValueError])
def test_a_reader_that_fails_ends_the_command(opened: Opened, error: type[Exception]) -> None:
    """Instead of waiting forever for lines that nobody reads."""
    lines, _, _ = opened(error=error)
    assert lines[1:] == ["starting", "JupyterLab is gone, or the engine is"]


@pytest.mark.parametrize(("security", "user"), [("name=rootless", "0:0"), ("name=userns", "4000")])
def test_in_a_rootless_engine_the_student_is_root(opened: Opened, security: str, user: str) -> None:
    """Root is the caller there and owns the folder; JupyterLab has to allow root."""
    _, command, options = opened(security)
    assert options["user"].startswith(user)
    assert ("--allow-root" in command) == (user == "0:0")


def test_a_rootless_engine_without_a_bridge_opens_no_lab(opened: Opened) -> None:
    """Its host network is not this machine's: no browser here would find the port."""
    (lines,) = opened("name=rootless", bridge=False)
    assert lines[0].startswith("this rootless Docker engine has no bridge")


def test_the_lessons_are_there_and_open_as_notebooks(served: Served) -> None:
    """A double click on a script opens jupytext's notebook."""
    status, folder = served.ask("/api/contents/")
    names = {entry["name"] for entry in folder["content"]}
    assert (status, names >= {LESSON, "parallel"}) == (200, True)
    assert "expected" not in names
    _, notebook = served.ask(f"/api/contents/{LESSON}?type=notebook")
    assert "# Automatic differentiation" in notebook["content"]["cells"][0]["source"]
    _, settings = served.ask("/lab/api/settings/@jupyterlab/docmanager-extension:plugin")
    viewers = settings["schema"]["properties"]["defaultViewers"]["default"]
    assert viewers["python"] == "Jupytext Notebook"


def test_comments_stay_comments(served: Served) -> None:
    """When a script is opened, and when its notebook is saved; jupytext reads `# ls` as a magic."""
    place, cell = "/api/contents/comments.py", "# ls\n# !touch owned\n# %time 1\nx = 1"
    text = f"# %%\n{cell}\n"
    script = {"type": "file", "format": "text", "content": text}
    assert served.ask(place, method="PUT", data=script)[0] == 201
    _, opened = served.ask(f"{place}?type=notebook")
    assert [found["source"] for found in opened["content"]["cells"]] == [cell]
    saved = {"type": "notebook", "format": "json", "content": opened["content"]}
    assert served.ask(place, method="PUT", data=saved)[0] == 200
    assert served.ask(f"{place}?type=file")[1]["content"] == text
    assert served.ask(place, method="DELETE")[0] == 204


def test_without_the_token_every_request_is_refused(served: Served) -> None:
    """For files, kernels and the status; also with a wrong token."""
    for path in ("/api/contents/", "/api/kernels", "/api/status"):
        for token in ("", "0" * 48):
            assert served.ask(path, token=token)[0] == 403


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    """At 127.0.0.1 and no other address."""
    port = f"{urlsplit(served.url).port:04X}"

    def sockets() -> str:
        tables = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
        return "".join(table.read_text() for table in tables)

    rows = [row.split() for row in served.engine.thread.submit(sockets).result().splitlines()]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")]
    assert listening == [f"0100007F:{port}"]


def test_a_kernel_computes_with_torch_and_the_courses_package(served: Served) -> None:
    """Its sockets are files, because ports on a shared network would be open to everyone."""
    printed = served.execute(
        "import json, torch, ipykernel.connect as connect\n"
        "from parallel import launch\n"
        "print(torch.arange(4.0).square().sum().item())\n"
        "print(json.loads(connect.get_connection_info())['transport'])\n"
    )
    assert printed.split() == ["14.0", "ipc"]


def test_a_kernel_reads_no_expected_values_and_writes_only_to_the_students_folder(
    served: Served,
) -> None:
    """The container has nothing else of the course, and no capability."""
    printed = served.execute(
        "import pathlib, os\n"
        "print(*sorted(p.name for p in pathlib.Path('/course').iterdir()))\n"
        "print([str(p) for p in pathlib.Path('/course').rglob('expected')])\n"
        "for folder in ('/', '/course', '/course/lessons/parallel', '/lab'):\n"
        "    try: pathlib.Path(folder, 'new').touch(); print('written')\n"
        "    except OSError as error: print(error.errno)\n"
        "os.remove('/lab/new')\n"
        "print(os.getuid(), pathlib.Path('/proc/self/status').read_text().split('CapBnd:')[1][:17])"
    )
    user = str(os.getuid() or containers.STUDENT)
    course, read_only = ["copies.py", "lessons"], ["30"] * 3
    assert printed.split() == [*course, "[]", *read_only, "written", user, "0" * 16]


def test_the_labs_address_is_printed(served: Served) -> None:
    """If the network is shared, a warning comes before it."""
    before, address = served.output.rsplit("\n", 2)[:2]
    shared = "the lab shares this machine's network" in before
    assert shared == (served.engine.docker("network", "ls").count("bridge") == 0)
    assert address.startswith(f"{served.url}/lab?token={served.token}")


def test_a_students_changes_stay(host_engine: Engine, course: Path) -> None:
    """A second start names changed lessons, and updates the unchanged copies."""
    first = opened_lab(host_engine, course)
    model = {"type": "file", "format": "text", "content": "print('mine')\n"}
    assert first.ask(f"/api/contents/{LESSON}", method="PUT", data=model)[0] == 200
    assert first.end(signal.SIGINT)[0] == 0
    for path in (course / "lessons" / LESSON, course / "lessons/parallel/launch.py"):
        path.write_text(path.read_text() + "# new in the course\n")

    second = opened_lab(host_engine, course)
    assert f"{LESSON} has changed in the course; your copy stays" in second.output
    assert second.ask(f"/api/contents/{LESSON}?type=file")[1]["content"] == "print('mine')\n"
    assert second.end(signal.SIGINT)[0] == 0
    mine = course / "build/lab"
    assert (mine / LESSON).read_text() == "print('mine')\n"
    assert (mine / "parallel/launch.py").read_text().endswith("# new in the course\n")
    assert {path.stat().st_uid for path in mine.rglob("*")} == {os.getuid() or containers.STUDENT}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_lab(host_engine: Engine, course: Path, number: int) -> None:
    """Also with a running kernel: status 0, and no container is left."""
    opened = opened_lab(host_engine, course)
    opened.ask("/api/kernels", method="POST", data={"name": "python3"})
    status, output = opened.end(number)
    assert (status, opened.containers()) == (0, [])
    assert "Traceback" not in output


def test_shutting_down_in_the_menu_ends_the_command(host_engine: Engine, course: Path) -> None:
    """The menu sends this request."""
    opened = opened_lab(host_engine, course)
    assert opened.ask("/api/shutdown", method="POST")[0] == 200
    assert (opened.ended()[0], opened.containers()) == (0, [])


def test_the_container_of_a_killed_command_is_removed_by_the_next(
    host_engine: Engine, course: Path
) -> None:
    """Before it needs the port, which the leftover may still hold; a line reports it."""
    killed = opened_lab(host_engine, course)
    (left,) = killed.containers()
    killed.end(signal.SIGKILL)
    assert killed.containers() == [left]
    opened = opened_lab(host_engine, course, urlsplit(killed.url).port or 0)
    assert f"removed {left}, left by a command that was killed" in opened.output
    assert killed.containers() == []
    assert opened.end(signal.SIGINT)[0] == 0


def test_a_port_that_is_taken_is_the_machines_fault(host_engine: Engine, course: Path) -> None:
    """One line says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = invoke(host_engine, course, port)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert output.splitlines() == [
        f"port {port}: Address already in use: choose another with --port"
    ]


def test_a_lab_that_does_not_start_shows_its_last_line(host_engine: Engine, course: Path) -> None:
    """The last line of its errors, status 3, and no container."""
    (course / "build/lab/.lessons.json").mkdir(parents=True)
    process = invoke(host_engine, course)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    last = output.splitlines()[-1]
    assert re.fullmatch(r"JupyterLab was gone, exit status 1 \(IsADirectoryError: .*\)", last)
    assert host_engine.containers(process) == []
