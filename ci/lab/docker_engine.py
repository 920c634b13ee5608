"""The Docker engine: a connection to it, what it can do, and its refusals in plain words."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import MachineError
from ci.machine import atomic
from ci.plan.gpus import Gpu

SOCKET = "unix:///var/run/docker.sock"  # where the SDK looks without DOCKER_HOST
TIMEOUT_S = 60.0
INSTALL_TOOLKIT = "install the NVIDIA Container Toolkit and restart Docker, or use --gpus none"
MEMORY_FRACTION = 0.8  # of the engine's memory, for all containers of a plan together


@contextlib.contextmanager
def connect(timeout_s: float = TIMEOUT_S) -> Iterator[Any]:
    """Yield a client of the engine that the `docker` command would use.

    Each request may take `timeout_s` seconds. Raises MachineError, with the remedy, if the engine
    cannot be reached or refuses a request.
    """
    _require_socket()
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException

    if (name := context()) and not ContextAPI.get_context(name):  # the SDK would use the default
        raise MachineError(f"no Docker context '{name}': `docker context ls` lists them")
    try:
        client = docker.from_env(timeout=timeout_s)
    except DockerException as error:
        raise MachineError(_unreachable(error)) from None
    with contextlib.closing(client), explained():
        yield client


def _require_socket() -> None:
    """Fail early if there is no engine, because loading the SDK takes a tenth of a second."""
    kind, _, path = os.environ.get("DOCKER_HOST", SOCKET).partition("://")
    if kind == "unix" and not context():
        try:
            os.stat(path)  # noqa: PTH116 - Path.exists would hide a lack of permission
        except FileNotFoundError as error:
            raise MachineError(_unreachable(error)) from None
        except OSError:
            return  # the SDK's error says more


def context() -> str:
    """The Docker context that names the engine; empty if DOCKER_HOST or the default does."""
    if os.environ.get("DOCKER_HOST"):
        return ""
    config = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    name = os.environ.get("DOCKER_CONTEXT") or str(atomic.read_json(config).get("currentContext"))
    return "" if name in ("default", "None") else name


def _unreachable(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause and not isinstance(cause, PermissionError):
        cause = cause.__cause__ or cause.__context__
    if cause:
        return (
            "no permission to use the Docker engine: join the group 'docker', whose members are "
            "root on this machine"
        )
    where = os.environ.get("DOCKER_HOST") or (f"context '{context()}'" if context() else "")
    rootless = Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "docker.sock")
    if not where and rootless.exists():
        return (
            f"no Docker engine answers; for your rootless one, export DOCKER_HOST=unix://{rootless}"
        )
    return f"no Docker engine answers{where and f' at {where}'}: start it"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the SDK's errors into a MachineError that says what to do."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException, Timeout

    try:
        yield
    except Timeout:
        raise MachineError(
            "the Docker engine does not answer: try again when the machine is less busy, or "
            "restart Docker"
        ) from None
    except (DockerException, RequestException) as error:
        raise MachineError(_remedy(explanation(error))) from None


def explanation(error: Exception) -> str:
    """Return the engine's own words in an error of the SDK."""
    return str(getattr(error, "explanation", "") or error)


def _remedy(text: str) -> str:
    if "could not select device driver" in text:
        return f"the Docker engine cannot give GPUs to containers: {INSTALL_TOOLKIT}"
    if "unresolvable CDI devices" in text:
        return (
            "the Docker engine finds no CDI description of this GPU: sudo nvidia-ctk cdi generate "
            "--output=/etc/cdi/nvidia.yaml, and again after each change of the driver"
        )
    if "nvidia-container-cli:" in text:
        fault = text.partition("nvidia-container-cli:")[2].strip().partition("\n")[0]
        return f"NVIDIA's hook: {fault}"
    if "bind source path does not exist" in text:
        return f"the Docker engine cannot see this machine's files; is it on another one? {text}"
    return f"the Docker engine: {' '.join(text.split())}"


def field(answer: Mapping[str, Any], key: str) -> Any:
    """Return a value from an answer of the engine.

    Raises MachineError if it is missing: other engines that speak Docker's API leave some out.
    """
    if answer.get(key) is None:
        raise MachineError(f"the Docker engine's answer has no {key}: use Docker's own engine")
    return answer[key]


def usable_memory(client: Any) -> int:
    """Return how many bytes all containers may use together."""
    return int(field(client.info(), "MemTotal") * MEMORY_FRACTION)


def limited_cores(client: Any) -> int:
    """Return how many cores the engine has; 0 if it cannot limit how many a container uses."""
    info = client.info()
    return int(info.get("NCPU") or 0) if info.get("CpuCfsQuota") else 0


def is_podman(client: Any) -> bool:
    """Return whether Podman answers in the place of Docker."""
    parts = client.version().get("Components") or []
    return any("Podman" in str(part.get("Name")) for part in parts)


def require_gpus(client: Any, gpus: Sequence[Gpu]) -> None:
    """Raise MachineError for Podman, whose API ignores a request for GPUs without an error."""
    if gpus and is_podman(client):
        raise MachineError(
            "Podman's API gives no GPUs to containers: use Docker's own engine, or --gpus none"
        )


def is_rootless(client: Any) -> bool:
    """Return whether the engine runs as an ordinary user, who is then root in its containers.

    Every other user in a container is a subordinate user id of the machine, which cannot write the
    caller's files.
    """
    return "rootless" in " ".join(client.info().get("SecurityOptions") or [])
