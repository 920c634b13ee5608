"""`invoke lab`: JupyterLab in a container of the lab, for a student at this machine."""

import contextlib
import os
import queue
import re
import secrets
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.execute.leases import GpuPool, Lease
from ci.lab import containers, docker_engine, image
from ci.lab.containers import COURSE
from ci.lab.visible import require_readable, visible
from ci.lesson import exercises, reader
from ci.lesson.lesson import find_lessons
from ci.machine.port import ADDRESS, parse, require_free
from ci.machine.program import read_ahead
from ci.plan import gpus as devices

COPIES = Path(__file__).with_name("copies.py")
WORK = "/lab"  # the student's folder, in the container
INSIDE_PORT = 8888  # behind the bridge
READY_S = 120.0  # torch on a cold disk takes long
OPTIONS = (
    "--ServerApp.open_browser=False",
    "--ServerApp.port_retries=0",
    "--ServerApp.allow_remote_access=False",  # refuse pages that use another name for 127.0.0.1
    "--Application.log_level=ERROR",
    "--FileContentsManager.delete_to_trash=False",  # the container has no trash
    "--JupytextConfiguration.comment_magics=False",  # or a comment such as "# ls" becomes code
    "--KernelManager.transport=ipc",  # TCP is open to all users where the network is shared
)


def serve(
    lessons: Path, folder: Path, docker: Path, *, port: str, gpus: str, as_root: bool = False
) -> Iterator[str]:
    """Run JupyterLab until it is shut down or interrupted; yield the lines to print meanwhile.

    The student's copies of `lessons` are in `folder`; `docker` is docker/. `port` and `gpus` are
    the values of `--port` and `--gpus`, where `auto` means one GPU, or none on a machine without.
    The container is removed, unless this process is killed. Raises UsageError and MachineError.
    """
    number, request = parse(port), devices.parse(gpus)
    lease = _lease(request)
    with docker_engine.connect() as client:
        docker_engine.require_gpus(client, lease.gpus)
        found = image.find(client, image.variants(bool(lease.gpus)), docker)
        for name in containers.remove_orphans(client):
            yield f"removed {name}, left by a command that was killed"
        require_free(number)
        memory = docker_engine.usable_memory(client)
        as_root = as_root or containers.needs_root(client)
        network = _network_options(client, number)
    bridge = "ports" in network
    if not bridge:
        yield (
            "the Docker engine has no bridge: the lab shares this machine's network and can reach "
            "everything that listens on it"
        )
    token, user = secrets.token_hex(24), containers.user_inside(as_root)
    options = containers.hardened_options(
        memory,
        user=user,
        pids=4 * containers.PIDS,  # several kernels, with ranks
        environment={"JUPYTER_TOKEN": token},
        gpus=lease.gpus,
    )
    options |= network | {"name": containers.unique_name("lab")}
    options["mounts"] = _make_mounts(lessons, folder, user)
    _change_owner(folder, user)
    container = containers.Container(found.id, _command(bridge, number, as_root), options)
    with (
        contextlib.closing(lease),
        contextlib.closing(container),
        contextlib.suppress(KeyboardInterrupt),
    ):
        names = ", ".join(f"GPU {gpu.index}, {gpu.name}" for gpu in lease.gpus) or "no GPU"
        yield f"{found}; {names}; your files: {folder}/"
        yield from _follow(container, number, token)


def _lease(request: devices.Request) -> Lease:
    """Lease the GPUs of the lab, of which no run and no other lab gets one meanwhile.

    Raises MachineError if they are leased.
    """
    granted = devices.grant(request)
    wanted = granted[:1] if request.text == "auto" else granted
    candidates = devices.detect() if request.count else granted
    if lease := GpuPool(candidates).lease(wanted):
        return lease
    raise MachineError(
        f"--gpus {request.text}: runs or other labs have leased these GPUs; wait until they end, "
        "or use --gpus none"
    )


def _network_options(client: Any, port: int) -> dict[str, Any]:
    """Return the options by which 127.0.0.1 of this machine, and nobody else, reaches the lab."""
    if any(network.name == "bridge" for network in client.networks.list()):
        return {"network_mode": "bridge", "ports": {f"{INSIDE_PORT}/tcp": (ADDRESS, port)}}
    if docker_engine.is_rootless(client):
        raise MachineError(
            "this rootless Docker engine has no bridge, so no port of the lab could be reached: "
            "start it without --bridge=none"
        )
    return {"network_mode": "host"}


def _make_mounts(lessons: Path, folder: Path, user: str) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    shown = blank_solutions(lessons, folder.with_name(".lessons"))
    require_readable((COPIES, *shown), user)
    return [
        containers.mount(COPIES, f"{COURSE}/copies.py"),
        *(containers.mount(path, f"{COURSE}/lessons/{path.name}") for path in shown),
        containers.mount(folder, WORK, writable=True),
    ]


def blank_solutions(lessons: Path, folder: Path) -> list[Path]:
    """Write the lessons' scripts into `folder` without their solutions.

    Returns these scripts, and the other files of `lessons` that a student may see: neither the
    expected values nor another form of a script (`03_autograd.py~`), which might have solutions.
    Raises CourseError for a malformed lesson, whose solutions might not be marked.
    """
    folder.mkdir(exist_ok=True)
    found = [reader.read(path) for path in find_lessons(lessons)]
    scripts = [folder / lesson.path.name for lesson in found]
    for lesson, script in zip(found, scripts, strict=True):
        text = lesson.path.read_text(encoding="utf-8-sig")
        script.write_text(exercises.without_solutions(text), encoding="utf-8")
        script.chmod(0o644)  # the user inside has to read it, regardless of the caller's umask
    others = [path for path in visible(lessons) if not re.search(r"\.(py|ipynb)", path.name)]
    return [*scripts, *others]


def _change_owner(folder: Path, user: str) -> None:
    """Give `folder` and everything in it to the user; without root, it belongs to that user.

    Files are opened relative to their folder, because a student may be renaming folders now.
    """
    containers.change_owner(folder, user)
    if os.getuid() == 0:
        uid, gid = map(int, user.split(":"))
        for _, folders, files, descriptor in os.fwalk(folder):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


def _command(bridge: bool, port: int, as_root: bool) -> list[str]:
    """Return the container's command: update the student's copies, then become JupyterLab."""
    address, inside_port = ("0.0.0.0", INSIDE_PORT) if bridge else (ADDRESS, port)
    return [
        *("python", "-P", f"{COURSE}/copies.py", f"{COURSE}/lessons", WORK),
        *("jupyter-lab", *OPTIONS),
        *(f"--ServerApp.ip={address}", f"--ServerApp.port={inside_port}"),
        *(["--allow-root"] if as_root else []),
    ]


def _follow(container: containers.Container, port: int, token: str) -> Iterator[str]:
    """Yield the container's output until it ends, and the address once the server answers."""
    lines = read_ahead(container.lines())
    deadline = time.monotonic() + READY_S
    while not _answers(port, token):
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=0.2)
            if not line:
                raise MachineError(f"JupyterLab {container.ending()}")
            yield line.rstrip()
        if time.monotonic() > deadline:
            raise MachineError(f"JupyterLab does not answer at port {port}")
    yield f"http://{ADDRESS}:{port}/lab?token={token}"
    yield "Ctrl-C ends it"
    for line in iter(lines.get, ""):
        yield line.rstrip()
    if not container.has_succeeded():
        raise MachineError(f"JupyterLab {container.ending()}")


def _answers(port: int, token: str) -> bool:
    """Return whether this server answers; another server would not know the token."""
    url = f"http://{ADDRESS}:{port}/api/status"
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5):
            return True
    except OSError:
        return False
