"""Hardened containers, in which code that nobody has reviewed can run.

A container has no network, no capability and no way to gain one, a read-only root, few system
calls, and limits on memory, cores and processes. It sees only what is mounted into it.
"""

import contextlib
import os
import re
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.lab import docker_engine, owner
from ci.plan.gpus import Gpu

OWNER = "pytorch-course.owner"  # label: the process that made a container
STUDENT = 1000  # the user id inside if the caller is root
GIB = 2**30
COURSE = "/course"  # in a container
LARGEST_FILE = 2 * GIB  # that a process can write
INODES = ",nr_inodes=100k"  # Podman has no such option
TMP = f"rw,noexec,nosuid,nodev,size=1g{INODES}"  # /tmp in a container
# Refuses system calls, then becomes the command that follows. Not a file that is mounted, because
# the user inside might not be able to read it.
FILTER = ("python", "-ISc", Path(__file__).with_name("system_calls.py").read_text())
PIDS = 512
PIDS_PER_RANK = 128
PASSED_ON = re.compile("TZ|(TORCH_)?NCCL_.*|GLOO_.*|CUDA_LAUNCH_BLOCKING")  # the caller's variables
# Engines refuse what NCCL asks about NUMA nodes before CUDA allocates its buffers on the host.
NCCL = {"NCCL_CUMEM_HOST_ENABLE": "0"}
LONGEST_LINE = 2**22  # bytes of one message of a fork server
KILLED = 137  # exit status after a SIGKILL
END_S = 10  # how long a container may take to end before it is killed
EXIT_S = 5  # how long to wait for the exit status of a container whose output has ended


def hardened_options(
    memory: int,
    *,
    user: str,
    pids: int = PIDS,
    cores: int = 0,
    environment: Mapping[str, str] | None = None,
    gpus: Sequence[Gpu] = (),
) -> dict[str, Any]:
    """Return the options of a container with the least rights that lessons work with.

    These are arguments of the SDK's `containers.create`. The container may use `memory` bytes,
    `pids` processes, so many `cores` (all by default) and the GPUs `gpus`.
    """
    from docker.types import DeviceRequest, LogConfig, Ulimit

    options: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": TMP},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "user": user,
        "userns_mode": "host",  # an engine with userns-remap would map the user to another one
        "init": True,
        "mem_limit": memory,
        "memswap_limit": memory,
        "shm_size": GIB,  # Docker's 64 MB are too few for NCCL and for batches of some MB
        "pids_limit": pids,
        "nano_cpus": cores * 10**9,
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=LARGEST_FILE, hard=LARGEST_FILE),
        ],
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
        "environment": {**(NCCL if gpus else {}), **passed_on(), **(environment or {})},
        "labels": {OWNER: owner.current_process()},
        "hostname": "lab",  # gloo looks it up, even without a network
        "extra_hosts": {"lab": "127.0.0.1"},
    }
    if gpus:
        ids = [gpu.uuid for gpu in gpus]  # a count would select GPUs that other runs have leased
        options["device_requests"] = [DeviceRequest(device_ids=ids, capabilities=[["gpu"]])]
        options["ulimits"] += [Ulimit(name="memlock", soft=-1, hard=-1)]  # NCCL pins memory
    return options


def needs_root(client: Any) -> bool:
    """Return whether a container must run as root to write the caller's files.

    A rootless engine maps root inside to the user who started the engine, and other users inside
    to subordinate ids, which cannot write anyone's files. Raises MachineError if the caller is not
    that user.
    """
    if not docker_engine.is_rootless(client):
        return False
    if os.getuid() == 0:
        raise MachineError(
            "this Docker engine is rootless and belongs to another user: run this command as that "
            "user, not as root"
        )
    return True


def passed_on() -> dict[str, str]:
    """Return the variables of the caller's environment that a container gets."""
    return {name: text for name, text in os.environ.items() if PASSED_ON.fullmatch(name)}


def user_inside(as_root: bool) -> str:
    """Return the user of a container, `uid:gid`: the caller, or a student if the caller is root."""
    if as_root:
        return "0:0"
    return f"{os.getuid() or STUDENT}:{os.getgid() or STUDENT}"


def change_owner(path: Path, user: str) -> None:
    """Give `path` to a `uid:gid`. Without root, it already belongs to the only user inside."""
    if os.getuid() == 0:
        uid, gid = map(int, user.split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)


def remove_orphans(client: Any) -> list[str]:
    """Remove the containers whose process was killed; return their names."""
    found = client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
    orphans = [each for each in found if owner.has_exited(each.labels.get(OWNER, ""))]
    for orphan in orphans:
        _remove(orphan)
    return [orphan.name for orphan in orphans]


def unique_name(word: str) -> str:
    """Return a name for a container that shows in `docker ps` what the container is for."""
    return f"pytorch-course-{re.sub('[^A-Za-z0-9_.-]', '-', word)}-{uuid.uuid4().hex[:8]}"


def mount(source: Path, target: str, *, writable: bool = False) -> Any:
    """Return the option that mounts `source` of this machine at `target` in a container."""
    from docker.types import Mount

    # A bind mount, because a volume with a missing source would create it, owned by root.
    return Mount(target, str(source.resolve()), type="bind", read_only=not writable)


class Container:
    """A running container and its standard streams. A `Channel`."""

    def __init__(self, image: str, command: Sequence[str], options: Mapping[str, Any]) -> None:
        """Create and start it. Raises MachineError, and then leaves no container behind."""
        self._memory = int(options["mem_limit"])
        self._errors = deque[str](maxlen=20)  # the last lines of its standard error
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(docker_engine.connect())
            self._container, self._streams = _start(client, image, [*FILTER, *command], options)
            stack.callback(_remove, self._container)
            self._stack = stack.pop_all()

    def send(self, line: str, descriptors: Sequence[int] = ()) -> None:
        """Write to its standard input; nothing is inherited. Raises OSError if it has ended."""
        if (stream := self._streams._sock) is None:  # its output has ended
            raise BrokenPipeError
        stream.sendall(line.encode())

    def lines(self) -> Iterator[str]:
        """Yield the whole lines of its standard output until it ends; then close its streams."""
        from docker.utils.socket import STDOUT, frames_iter

        rest = {True: b"", False: b""}
        with contextlib.closing(self._streams._sock), contextlib.closing(self._streams):
            for stream, chunk in frames_iter(self._streams, tty=False):
                *whole, last = (rest[stream == STDOUT] + chunk).split(b"\n")
                rest[stream == STDOUT] = last[-LONGEST_LINE:]
                for line in whole:
                    text = line.decode(errors="replace") + "\n"
                    if stream == STDOUT:
                        yield text
                    else:
                        self._errors.append(text)

    def ending(self) -> str:
        """Return how it ended, as the end of a sentence, with its last line of errors.

        Raises MachineError if nothing inside can have ended it so.
        """
        state = self._wait()
        if state is None:
            raise MachineError(
                "the container is gone: the Docker engine has ended, or somebody has removed it"
            )
        if state.get("OOMKilled"):
            return f"was out of memory: the container may take {self._memory / GIB:.1f} GiB"
        if state.get("Running"):
            return "hangs"
        if state.get("ExitCode") == KILLED:  # nothing inside can kill the first process
            raise MachineError(
                "the container was killed: by `docker kill`, or because the machine was out of "
                "memory"
            )
        last = self._errors[-1].strip() if self._errors else ""
        return f"was gone, exit status {state.get('ExitCode', 'unknown')}{last and f' ({last})'}"

    def has_succeeded(self) -> bool:
        """Return whether it has ended with exit status 0."""
        state = self._wait() or {}
        return not state.get("Running") and state.get("ExitCode") == 0

    def _wait(self) -> Mapping[str, Any] | None:
        """Wait for its end; None if the engine does not know it or does not answer."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            with contextlib.suppress(RequestException):  # it still runs
                self._container.wait(timeout=EXIT_S)
            self._container.reload()
        except (DockerException, RequestException):
            return None
        return self._container.attrs.get("State") or {}

    def close(self) -> None:
        """End it with SIGTERM, or with SIGKILL after END_S seconds, and remove it."""
        try:
            with contextlib.suppress(MachineError), docker_engine.explained():
                self._container.stop(timeout=END_S)
        finally:  # a second Ctrl-C does not wait
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, and remove it.

        If the engine is gone, the next command removes what it has left.
        """
        with contextlib.suppress(MachineError):
            self._stack.close()


def _start(
    client: Any, image: str, command: Sequence[str], options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Start a container and return it with its streams; if it cannot start, remove it.

    What the engine does not have is left out: unlimited locked memory, and a limit on inodes.
    """
    from docker.errors import APIError

    try:
        made = client.containers.create(image, list(command), stdin_open=True, **options)
    except APIError as error:
        tmp = options["tmpfs"]["/tmp"].removesuffix(INODES)
        if "nr_inodes" not in str(error) or options["tmpfs"]["/tmp"] == tmp:
            raise
        return _start(client, image, command, {**options, "tmpfs": {"/tmp": tmp}})
    with contextlib.ExitStack() as undo:
        undo.callback(made.remove, force=True)
        streams = made.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        undo.callback(streams._sock.close)  # the SDK leaves it open
        undo.callback(streams.close)
        try:
            made.start()
        except APIError as error:
            limits = [limit for limit in options["ulimits"] if limit.name != "memlock"]
            if "rlimit" not in str(error) or limits == options["ulimits"]:
                raise
        else:
            undo.pop_all()
            return made, streams
    return _start(client, image, command, {**options, "ulimits": limits})


def _remove(container: Any) -> None:
    from docker.errors import APIError

    try:
        container.remove(force=True)
    except APIError as error:
        if error.status_code not in (404, 409):  # another process has removed it, or is about to
            raise
