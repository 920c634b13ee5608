"""JupyterLab in a container of the lab, for the student at this machine: `invoke lab`."""

import contextlib
import os
import queue
import re
import secrets
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.execute.executor import COURSE, variants
from ci.lab import containers, image
from ci.lesson import exercises, reader
from ci.plan.gpus import Gpu
from ci.port import require_free

COPIES = Path(__file__).with_name("copies.py")  # needs nothing else of the pipeline
WORK = "/lab"  # the student's folder, in the container
INSIDE_PORT = 8888  # behind the bridge
READY_S = 120.0  # a cold disk under torch's neighbours, and more than that is a fault
OPTIONS = (
    "--ServerApp.open_browser=False",
    "--ServerApp.port_retries=0",
    "--ServerApp.allow_remote_access=False",  # a page of another name for 127.0.0.1 is refused
    "--Application.log_level=ERROR",
    "--FileContentsManager.delete_to_trash=False",  # there is no trash in the container
    "--KernelManager.transport=ipc",  # TCP would be open to all users where the network is shared
)


def serve(
    lessons: Path,
    folder: Path,
    docker: Path,
    *,
    port: int,
    gpus: Sequence[Gpu] = (),
    as_root: bool = False,
) -> Iterator[str]:
    """Run JupyterLab until it is shut down or interrupted; yields the lines to be said meanwhile.

    The student's copies of `lessons` are in `folder`; the image is that of `docker`/. Nothing is
    left of the container, unless this process is killed. Raises MachineError.
    """
    with containers.connect() as client:
        found = image.find(client, variants(gpus), docker)
        for name in containers.sweep(client):
            yield f"removed {name}, left by a command that was killed"
        require_free(port)
        bridge = any(network.name == "bridge" for network in client.networks.list())
        memory = containers.share(client)
    if not bridge:
        yield (
            "the Docker engine has no bridge: the lab shares this machine's network, and reaches "
            "all that listens on it"
        )
    token, user = secrets.token_hex(24), containers.user(as_root)
    options = containers.hardened(
        memory,
        user=user,
        pids=4 * containers.PIDS,  # several kernels, with ranks
        environment={"JUPYTER_TOKEN": token},
        gpus=gpus,
    )
    options |= _network(bridge, port)
    options["name"] = containers.container_name("lab")
    options["mounts"] = _mounts(lessons, folder)
    _give(folder, user)
    container = containers.Container(found.id, _command(bridge, port, as_root), options)
    with contextlib.closing(container), contextlib.suppress(KeyboardInterrupt):
        yield f"{found}; {', '.join(gpu.name for gpu in gpus) or 'no GPU'}; yours: {folder}/"
        yield from _follow(container, port, token)


def _network(bridge: bool, port: int) -> dict[str, Any]:
    """Reached at 127.0.0.1 of this machine, and nowhere else."""
    if bridge:
        return {"network_mode": "bridge", "ports": {f"{INSIDE_PORT}/tcp": ("127.0.0.1", port)}}
    return {"network_mode": "host"}


def _mounts(lessons: Path, folder: Path) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    shown = hand_out(lessons, folder.with_name(".lessons"))
    return [
        containers.mount(COPIES, f"{COURSE}/copies.py"),
        *(containers.mount(path, f"{COURSE}/lessons/{path.name}") for path in shown),
        containers.mount(folder, WORK, writable=True),
    ]


def hand_out(lessons: Path, folder: Path) -> list[Path]:
    """Write the lessons' scripts into `folder` without their solutions.

    Returns these scripts, and what else of `lessons` a student may see: not the expected values,
    and no other form of a script (`03_autograd.py~`), which might have its solutions. Raises
    CourseError for a lesson that is malformed: a solution may not look like one there.
    """
    folder.mkdir(exist_ok=True)
    found = [reader.read(path) for path in reader.find(lessons)]
    scripts = [folder / lesson.path.name for lesson in found]
    for lesson, script in zip(found, scripts, strict=True):
        text = lesson.path.read_text(encoding="utf-8-sig")
        script.write_text(exercises.without_solutions(text), encoding="utf-8")
        script.chmod(0o644)  # whatever our umask: the user inside has to read it
    others = [
        path
        for path in lessons.iterdir()
        if path.name[0] not in "._"
        and path.name != "expected"
        and not re.search(r"\.(py|ipynb)", path.name)
    ]
    return [*scripts, *others]


def _give(folder: Path, user: str) -> None:
    """Make `folder` and all in it that user's; it is already, unless we are root.

    By the open folder and not by path: somebody may be at work in it.
    """
    containers.give(folder, user)
    if os.getuid() == 0:
        uid, gid = map(int, user.split(":"))
        for _, folders, files, at in os.fwalk(folder):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)


def _command(bridge: bool, port: int, as_root: bool) -> list[str]:
    """What runs in the container: the copies are brought up to date, then JupyterLab."""
    at = ("0.0.0.0", INSIDE_PORT) if bridge else ("127.0.0.1", port)
    return [
        *("python", "-P", f"{COURSE}/copies.py", f"{COURSE}/lessons", WORK),
        *("jupyter-lab", *OPTIONS),
        *(f"--ServerApp.ip={at[0]}", f"--ServerApp.port={at[1]}"),
        *(["--allow-root"] if as_root else []),
    ]


def _follow(container: containers.Container, port: int, token: str) -> Iterator[str]:
    """What the container says until it ends, and where to go once the server answers."""
    lines = queue.SimpleQueue[str]()
    threading.Thread(target=_read, args=(container, lines), daemon=True).start()
    deadline = time.monotonic() + READY_S
    while not _answers(port, token):
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=0.2)
            if not line:
                raise MachineError(f"JupyterLab {container.ending()}")
            yield line.rstrip()
        if time.monotonic() > deadline:
            raise MachineError(f"JupyterLab does not answer at port {port}")
    yield f"http://127.0.0.1:{port}/lab?token={token}"
    yield "Ctrl-C ends it"
    for line in iter(lines.get, ""):
        yield line.rstrip()
    if container.exit_status() != 0:
        raise MachineError(f"JupyterLab {container.ending()}")


def _read(container: containers.Container, lines: "queue.SimpleQueue[str]") -> None:
    for line in container.lines():
        lines.put(line)
    lines.put("")


def _answers(port: int, token: str) -> bool:
    """Whether our server does: another one would not know the token."""
    url = f"http://127.0.0.1:{port}/api/status"
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5):
            return True
    except OSError:
        return False
