"""The lab: containers that can be trusted with code. The only importer of `docker`.

A container gets the course read-only and by name: this package, one lesson and what it imports,
never the expected values. It may write into its lesson's attempts and nowhere else, has no network,
no capability and no way to gain one, and a share of the machine that it can't exceed.
"""

import contextlib
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.lab import image, owner
from ci.plan.gpus import Gpu

SOCKET = "unix:///var/run/docker.sock"  # where the SDK looks
OWNER = "pytorch-course.owner"  # label: whose container it is, so that leftovers are known
STUDENT = 1000  # the user inside, where the caller is root
GIB = 2**30
SHARE = 0.8  # of the engine's memory, for all containers of a plan together
PIDS = 512
PASSED_ON = re.compile("TZ|NCCL_.*|GLOO_.*|CUDA_LAUNCH_BLOCKING")  # of the caller's environment
LONGEST_LINE = 2**22  # bytes of one message of a worker


@contextlib.contextmanager
def connect() -> Iterator[Any]:
    """A client of the Docker engine, the one that `docker` itself would use.

    Raises MachineError, with the remedy, where it can't be reached.
    """
    _require_socket()
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
    except DockerException as error:
        raise MachineError(_unreachable(error)) from None
    with contextlib.closing(client), _explained():
        yield client


def _require_socket() -> None:
    """Say at once that there is no engine: to load the SDK takes a tenth of a second."""
    kind, _, path = os.environ.get("DOCKER_HOST", SOCKET).partition("://")
    if kind == "unix":
        try:
            os.stat(path)  # noqa: PTH116 - Path.exists hides what else is wrong
        except FileNotFoundError as error:
            raise MachineError(_unreachable(error)) from None
        except OSError:
            return  # Docker says it better


def _unreachable(error: BaseException) -> str:
    """What keeps us from the engine, and the remedy: the cause says it, not the message."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, PermissionError):
        cause = cause.__cause__ or cause.__context__
    if cause:
        return (
            "no permission to use the Docker engine: join the group 'docker', whose members are "
            "root on this machine"
        )
    where = os.environ.get("DOCKER_HOST")
    return f"no Docker engine answers{f' at {where}' if where else ''}: start it"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what the engine refuses into a line with a remedy."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        text = str(getattr(error, "explanation", "") or error)
        raise MachineError(_remedy(text)) from None


def _remedy(text: str) -> str:
    if "could not select device driver" in text:
        return (
            "the Docker engine can't hand out GPUs: install the NVIDIA Container Toolkit and "
            "restart Docker, or say --gpus none"
        )
    if "nvidia-container-cli" in text:
        return (
            f"NVIDIA's hook: {text.partition('nvidia-container-cli:')[2].strip().splitlines()[0]}"
        )
    if "bind source path does not exist" in text:
        return f"the Docker engine does not see our files; is it on another machine? {text}"
    return f"the Docker engine: {' '.join(text.split())}"


def base(client: Any, name: str, on_step: Callable[[str], None]) -> image.Base:
    """The base image `name`, pulled where the engine does not have it: `on_step` gets a line.

    Raises MachineError, with the remedy, where it is not to be had.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        found = client.images.get(name)
    except ImageNotFound:
        on_step(f"pulling {name}")
        try:
            found = client.images.pull(name)
        except DockerException as error:
            why = " ".join(str(getattr(error, "explanation", "") or error).split())
            raise MachineError(
                f"no base image {name} here or in a registry: name one by --base-image, or make "
                f"one by docker/make_base ({why})"
            ) from None
    digests = [digest.partition("@")[2] for digest in found.attrs.get("RepoDigests") or []]
    return image.Base(name, min(digests, default=found.id))


def share(client: Any, slots: int = 1) -> int:
    """The memory of one container, in bytes, where `slots` of them go on at once."""
    return int(client.info()["MemTotal"] * SHARE / slots)


def hardened(
    memory: int,
    *,
    user: str,
    pids: int = PIDS,
    environment: Mapping[str, str] | None = None,
    gpus: Sequence[Gpu] = (),
) -> dict[str, Any]:
    """What every container of ours is created with, as the SDK takes it: the least that works.

    It may take `memory` bytes and `pids` processes.
    """
    from docker.types import DeviceRequest, LogConfig, Ulimit

    passed_on = {name: text for name, text in os.environ.items() if PASSED_ON.fullmatch(name)}
    options: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=1g"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "user": user,
        "init": True,
        "mem_limit": memory,
        "memswap_limit": memory,
        "shm_size": GIB,  # Docker's 64 MB are too few for NCCL, and for batches of some MB
        "pids_limit": pids,
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
        "environment": {**passed_on, **(environment or {})},
        "labels": {OWNER: owner.this()},
        "hostname": "lab",  # which gloo looks up, without a network
        "extra_hosts": {"lab": "127.0.0.1"},
    }
    if gpus:
        ids = [gpu.uuid for gpu in gpus]  # a count would be the first ones, whoever has them
        options["device_requests"] = [DeviceRequest(device_ids=ids, capabilities=[["gpu"]])]
        options["ulimits"] += [Ulimit(name="memlock", soft=-1, hard=-1)]  # NCCL pins memory
    return options


def user(as_root: bool) -> str:
    """Who a lesson is inside: the caller, or a student where the caller is root."""
    if as_root:
        return "0:0"
    return f"{os.getuid() or STUDENT}:{os.getgid() or STUDENT}"


def give(path: Path, user: str) -> None:
    """Make the folder `path` that user's, and no other; it is already, unless we are root."""
    if os.getuid() == 0:
        uid, gid = map(int, user.split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)


def sweep(client: Any) -> list[str]:
    """Remove the containers of processes that are gone; their names."""
    left = client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
    gone = [found for found in left if owner.gone(found.labels[OWNER])]
    for found in gone:
        _remove(found)
    return [found.name for found in gone]


def container_name(word: str) -> str:
    """A name for a container, by which `docker ps` shows what runs in it."""
    return f"pytorch-course-{re.sub('[^A-Za-z0-9_.-]', '-', word)}-{uuid.uuid4().hex[:8]}"


def mount(source: Path, target: str, *, writable: bool = False) -> Any:
    """`source` of this machine at `target` in a container."""
    from docker.types import Mount

    # Not a volume: where its source is not there, it would be made, as root.
    return Mount(target, str(source.resolve()), type="bind", read_only=not writable)


class Container:
    """A running container, as whoever talks to it sees it. A `Channel`."""

    def __init__(self, image: str, command: Sequence[str], options: Mapping[str, Any]) -> None:
        self._errors = deque[str](maxlen=20)  # the last of its standard error
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(connect())
            self._container, self._streams = _started(client, image, command, options)
            stack.callback(_remove, self._container)
            self._stack = stack.pop_all()

    def send(self, line: str) -> None:
        """Write to its standard input."""
        self._streams._sock.sendall(line.encode())

    def lines(self) -> Iterator[str]:
        """What it writes to its standard output, a line at a time, however it arrives.

        To be read to the end, where its streams are closed.
        """
        from docker.utils.socket import STDOUT, frames_iter

        rest = {True: b"", False: b""}
        for stream, chunk in frames_iter(self._streams, tty=False):
            *whole, last = (rest[stream == STDOUT] + chunk).split(b"\n")
            rest[stream == STDOUT] = last[-LONGEST_LINE:]
            for line in whole:
                text = line.decode(errors="replace") + "\n"
                if stream == STDOUT:
                    yield text
                else:
                    self._errors.append(text)
        _release(self._streams)

    def ending(self) -> str:
        """Its exit status, or that it was out of memory, and the last line of its errors."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            with contextlib.suppress(RequestException):  # it still runs
                self._container.wait(timeout=5)
            self._container.reload()
        except (DockerException, RequestException):
            return "is gone, or the engine is"
        state = self._container.attrs["State"]
        if state["OOMKilled"]:
            limit = self._container.attrs["HostConfig"]["Memory"] / GIB
            return f"was out of memory: the container may take {limit:.1f} GiB"
        if state["Running"]:
            return "hangs"
        last = self._errors[-1].strip() if self._errors else ""
        return f"was gone, exit status {state['ExitCode']}{last and f' ({last})'}"

    def exit_status(self) -> int:
        """Its exit status, once it has ended."""
        return int(self._container.wait()["StatusCode"])

    def close(self) -> None:
        """End it by SIGTERM, in 10 s by SIGKILL, and remove it."""
        try:
            with contextlib.suppress(MachineError), _explained():
                self._container.stop(timeout=10)
        finally:  # a second Ctrl-C does not wait
            self._stack.close()


def _started(
    client: Any, image: str, command: Sequence[str], options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """A started container and the socket of its standard streams; none is left if it can't start.

    Locked memory without limit needs a right that small machines don't give: it is then left out.
    """
    from docker.errors import APIError

    made = client.containers.create(image, list(command), stdin_open=True, **options)
    streams = made.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    try:
        made.start()
    except BaseException as error:
        _release(streams)
        made.remove(force=True)
        limits = [limit for limit in options["ulimits"] if limit.name != "memlock"]
        if isinstance(error, APIError) and "rlimit" in str(error) and limits != options["ulimits"]:
            return _started(client, image, command, {**options, "ulimits": limits})
        raise
    return made, streams


def _remove(container: Any) -> None:
    from docker.errors import APIError

    try:
        container.remove(force=True)
    except APIError as error:
        if error.status_code not in (404, 409):  # somebody else was quicker, or is about to be
            raise


def _release(streams: Any) -> None:
    """Close a container's streams: the SDK's object, and the socket that it leaves open."""
    raw = streams._sock
    streams.close()
    raw.close()
