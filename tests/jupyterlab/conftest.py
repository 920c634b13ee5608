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
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from ci.lab import containers
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from tests.conftest import DOCKER, ROOT
from tests.machine_parts import missing

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
