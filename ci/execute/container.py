"""Fork servers in containers of the lab."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.execute.leases import Lease
from ci.lab import containers, docker_engine, image
from ci.lab.containers import COURSE
from ci.lab.image import Image
from ci.lab.visible import require_readable, visible
from ci.machine import atomic
from ci.plan import attempts, memory
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

ATTEMPT = "/attempt"  # in a container: the folder of the run in progress
PRIVATE = "/tmp:/dev/shm:/dev/mqueue"  # in a container, emptied after each run
CODE = Path(__file__).parents[1]
PARTS = ("__init__.py", "errors.py", "machine", "lesson", "worker")  # of ci/, for a fork server
CALLER = f"{os.getuid()}:{os.getgid()}"
SERVER = ("python", "-P", "-m", "ci.worker.server")


def server_code() -> dict[str, Path]:
    """The files and folders that a fork server needs, by their paths in a container."""
    return {f"{COURSE}/ci/{part}": CODE / part for part in PARTS}


class ServerContainer(containers.Container):
    """A fork server in a container. A `ServerChannel`."""

    inherits = False
    may_serve_again = True
    wait_reason = ""

    def __init__(self, image: Image, options: Mapping[str, Any], written: Path) -> None:
        """Start it; its runs, one after the other, write to the folder `written`."""
        super().__init__(image.id, SERVER, options)
        self._written = written

    def attempt(self, path: Path) -> str:
        """The path in the container, to whose folder `path` links until the end of the run.

        It shows no other attempt, and is a mount, in the place of which a run can put no link.
        """
        path.rmdir()
        path.symlink_to(self._written.absolute())
        return ATTEMPT

    def memory(self, pid: int) -> int:
        """Zero, since the engine enforces the container's limit."""
        return 0

    def close(self) -> None:
        """End and remove it.

        Not with SIGTERM: the first process of a container ignores that until it has a handler, and
        so a run that is interrupted in its first seconds would end ten seconds later.
        """
        self.kill()
        with contextlib.suppress(OSError):  # it has what a run in progress has written
            self._written.rmdir()


class ContainerExecutor:
    """Containers, each for the runs of one lesson, one after the other. An `Executor`."""

    shared = False
    is_scheduled = False

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
        ranks = max(int(run.parameters.get("world_size", 1)) for run in runs)
        options = containers.hardened_options(
            memory.share(self._memory, slots=self._slots, ranks=ranks, gpus=len(lease.gpus)),
            user=self._user,
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
        written = attempts.begin(runs[0], folder)
        containers.change_owner(written, self._user)
        options["mounts"] = [
            *(containers.mount(path, target) for target, path in mounts.items()),
            containers.mount(written, ATTEMPT, writable=True),
        ]
        return ServerContainer(self._image, options, written)

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
        """Move the notebook and the log to `path`, owned by the caller; remove all else."""
        if not path.is_symlink():
            return
        written = path.readlink()
        path.unlink()
        path.mkdir()
        if written.exists():  # until the container has ended without a run
            written.chmod(0o755)
            for left in [*written.iterdir()]:
                _take(left, path)


def _take(left: Path, attempt: Path) -> None:
    """Move a file of a run to its attempt if it is the notebook or the log; else remove it."""
    is_kept = left.name in (attempts.NOTEBOOK, attempts.LOG) and left.is_file()
    if is_kept and not left.is_symlink():
        containers.change_owner(left.rename(attempt / left.name), CALLER)
    else:
        atomic.remove(left)
