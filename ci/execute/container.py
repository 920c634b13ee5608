"""Fork servers in containers of the lab."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.execute.leases import Lease
from ci.lab import containers, docker_engine, image
from ci.lab.containers import COURSE
from ci.lab.image import Image
from ci.lab.visible import require_readable, visible
from ci.plan import memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

ATTEMPTS = "/attempts"  # in a container
PRIVATE = "/tmp:/dev/shm"  # in a container, emptied after each run
CODE = Path(__file__).parents[1]
PARTS = ("__init__.py", "errors.py", "machine", "lesson", "worker")  # of ci/, for a fork server
SERVER = ("python", "-P", "-m", "ci.worker.server")


def server_code() -> dict[str, Path]:
    """The files and folders that a fork server needs, by their paths in a container."""
    return {f"{COURSE}/ci/{part}": CODE / part for part in PARTS}


class ServerContainer(containers.Container):
    """A fork server in a container. A `ServerChannel`."""

    inherits = False
    may_serve_again = True
    wait_reason = ""

    def __init__(self, image: Image, options: Mapping[str, Any]) -> None:
        super().__init__(image.id, SERVER, options)
        self._user = options["user"]
        self._abandoned = False

    def attempt(self, path: Path) -> str:
        """The path in the container; the user inside becomes the owner."""
        if os.getuid() == 0:
            for folder in (path.parent.parent, path.parent):
                folder.chmod(0o755)  # regardless of the umask: the user inside has to get there
        containers.change_owner(path, self._user)
        return f"{ATTEMPTS}/{path.parent.name}/{path.name}"

    def memory(self, pid: int) -> int:
        """Zero, since the engine enforces the container's limit."""
        return 0

    def abandon(self) -> None:
        """Leave the container to the next sweep: a process in it cannot be killed."""
        self._abandoned = True

    def close(self) -> None:
        """End and remove it, unless it is abandoned."""
        if not self._abandoned:
            super().close()


class ContainerExecutor:
    """Containers, each for the runs of one lesson, one after the other. An `Executor`."""

    shared = False
    is_scheduled = False
    jobs: Sequence[str] = ()

    def __init__(
        self,
        image: Image,
        *,
        memory: int,
        cores: int = 0,
        slots: int = 1,
        as_root: bool = False,
    ) -> None:
        """`memory` is for all containers together, of which `slots` run at once.

        Each container is limited to some of the `cores`, if these are known.
        """
        self.provenance: Mapping[str, str] = {"image": str(image)}
        self._image, self._memory, self._cores, self._slots = image, memory, cores, slots
        self._user = containers.user_inside(as_root)
        self._students = itertools.count(containers.STUDENT)

    @classmethod
    def ready(
        cls, gpus: Sequence[Gpu], docker: Path, *, slots: int, as_root: bool
    ) -> tuple["ContainerExecutor", list[str]]:
        """An executor with the image of `docker`/, and remarks for the user.

        Raises MachineError where the engine does not answer or the image is not up to date.
        """
        with docker_engine.connect() as client:
            docker_engine.require_gpus(client, gpus)
            found = image.find(client, image.variants(bool(gpus)), docker)
            remarks = [
                f"removed {name}, left by a run that was killed"
                for name in containers.remove_orphans(client)
            ]
            usable, cores = docker_engine.usable_memory(client), docker_engine.limited_cores(client)
            as_root = as_root or containers.needs_root(client)
        return cls(found, memory=usable, cores=cores, slots=slots, as_root=as_root), remarks

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, variables: Mapping[str, str]
    ) -> ServerContainer:
        """Start a fork server in a container that has what `runs` need from the course."""
        if lease.gpus:
            with docker_engine.connect() as client:  # the previous holder may have been killed
                containers.remove_orphans(client)
        lesson = runs[0].lesson
        attempts = folder / lesson.name
        attempts.mkdir(parents=True, exist_ok=True)
        ranks = max(int(run.parameters.get("world_size", 1)) for run in runs)
        options = containers.hardened_options(
            memory.share(self._memory, slots=self._slots, ranks=ranks, gpus=len(lease.gpus)),
            user=self._another_user(),
            pids=containers.PIDS + containers.PIDS_PER_RANK * ranks,
            cores=min(self._cores, runs[0].threads * ranks + 1),  # 1 for the kernel
            environment={**variables, "PYTHONPATH": COURSE, "PYTORCH_COURSE_PRIVATE": PRIVATE},
            gpus=lease.gpus,
        )
        # The server reaps orphans itself. Docker's init would run as the lesson's user, who could
        # then open its ends of the server's pipes.
        options["init"] = False
        options["name"] = containers.unique_name(lesson.name)
        mounts = server_code() | {
            f"{COURSE}/lessons/{path.name}": path
            for path in (lesson.path, *visible(lesson.path.parent))
        }
        require_readable(mounts.values(), self._user)
        options["mounts"] = [
            *(containers.mount(path, target) for target, path in mounts.items()),
            containers.mount(attempts, ATTEMPTS, writable=True),
        ]
        return ServerContainer(self._image, options)

    def facts(self) -> Mapping[str, object]:
        """The image with everything in it, the user, and the variables passed on to it."""
        return {
            "executor": "container",
            "image": self._image.id,
            "user": self._user,
            "variables": containers.passed_on(),
        }

    def lesson(self, path: Path) -> str:
        """The path in the container."""
        return f"{COURSE}/lessons/{path.name}"

    def reclaim(self, path: Path) -> None:
        """Make the caller the owner of the attempt and its files."""
        for part in (path, *path.iterdir()):
            containers.change_owner(part, f"{os.getuid()}:{os.getgid()}")

    def _another_user(self) -> str:
        """If the caller is root, each container gets a user of its own.

        Runs of a sweep execute in parallel and must not write to each other's attempts.
        """
        if os.getuid() or self._user == "0:0":
            return self._user
        student = next(self._students)
        return f"{student}:{student}"
