"""Where workers run: here, as processes of this machine, or in the lab, in containers.

The worker is the same file at each place, and is spoken to in the same way: JSON lines.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ci.errors import MachineError, UsageError
from ci.execute.leases import Lease
from ci.execute.local import Here
from ci.lab import containers, docker_engine, image
from ci.lab.image import Image
from ci.plan import keys
from ci.plan.gpus import Gpu
from ci.plan.planner import Run

COURSE, ATTEMPTS = "/course", "/attempts"  # in a container
CODE = Path(__file__).parents[1]
BESIDE_THE_LESSON = ("__init__.py", "errors.py", "atomic.py", "lesson", "worker")  # parts of ci/
PIDS_PER_RANK = 128


class Channel(Protocol):
    """A process that was started at a place, as whoever speaks to it sees it."""

    def send(self, line: str) -> None:
        """Write a line to its standard input. OSError where it is gone."""

    def lines(self) -> Iterator[str]:
        """The lines of its standard output, until it ends."""

    def ending(self) -> str:
        """How it ended, as the end of a sentence: `was killed by SIGKILL`, `hangs`."""

    def close(self) -> None:
        """End its input, by which it ends; then end it, and whatever it left."""


class WorkerChannel(Channel, Protocol):
    """A worker that was started, as its engine sees it."""

    def attempt(self, path: Path) -> str:
        """What it calls the attempt `path`, in which it may write from now on."""

    def memory(self) -> int:
        """The bytes that it and all below it have; 0 where these have a limit of their own."""


class Place(Protocol):
    """Where workers run.

    `facts` are added to what a worker says of its environment; `shared` is whether a worker may
    serve several lessons.
    """

    facts: Mapping[str, str]
    shared: bool

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, settings: Mapping[str, str]
    ) -> WorkerChannel:
        """Start a worker for some of `runs`, with `settings` in its environment.

        They are all of one lesson, unless the place is `shared`. It is for the GPUs of `lease`;
        its attempts are going to be below `folder`.
        """

    def identity(self) -> str:
        """What is there beside the course: the same, the same results."""

    def lesson(self, path: Path) -> str:
        """What a worker calls the lesson script `path`."""

    def reclaim(self, path: Path) -> None:
        """The attempt `path` is ours again: its worker may no longer write in it."""


def parse(on: str) -> str:
    """Read the value of `--on`. Raises UsageError."""
    if on not in ("auto", "here", "lab"):
        raise UsageError(f"--on {on}: there are auto, here, lab")
    return on


def variants(granted: Sequence[Gpu]) -> list[str]:
    """The variants of the image that will do, the best one first."""
    return ["cuda"] if granted else ["cpu", "cuda"]


def choose(
    on: str,
    granted: Sequence[Gpu],
    folder: Path,
    *,
    slots: int = 1,
    as_root: bool = False,
) -> tuple[Place, list[str]]:
    """The place that `--on auto | here | lab` means, and what is to be said of it.

    `folder` is docker/, whose image must be up to date. `auto` takes the lab where it is ready.
    Raises UsageError, and MachineError where the place is not ready.
    """
    if parse(on) == "here":
        return Here(), []
    try:
        with docker_engine.connect() as client:
            found = image.find(client, variants(granted), folder)
            swept = containers.remove_orphans(client)
            removed = [f"removed {name}, left by a run that was killed" for name in swept]
            memory = docker_engine.memory_share(client, slots)
            as_root = as_root or containers.needs_root(client)
    except MachineError as error:
        if on == "lab":
            raise MachineError(f"{error}; or say --on here") from None
        return Here(), [f"on this machine, not in the lab: {error}"]
    return Lab(found, memory=memory, as_root=as_root), removed


class Container(containers.Container):
    """A worker in a container. A `WorkerChannel`."""

    def __init__(self, image: Image, options: Mapping[str, Any]) -> None:
        super().__init__(image.id, ["python", "-P", "-m", "ci.worker.server"], options)
        self._user = options["user"]

    def attempt(self, path: Path) -> str:
        """Its place in the container; it is made the user's who is inside."""
        if os.getuid() == 0:
            for folder in (path.parent.parent, path.parent):
                folder.chmod(0o755)  # whatever our umask: the user inside has to get there
        containers.change_owner(path, self._user)
        return f"{ATTEMPTS}/{path.parent.name}/{path.name}"

    def memory(self) -> int:
        """Nothing to look after: the engine keeps it to its limit."""
        return 0


class Lab:
    """Containers, each for the runs of one lesson, one after the other. A `Place`."""

    shared = False

    def __init__(self, image: Image, *, memory: int, as_root: bool = False) -> None:
        self.facts: Mapping[str, str] = {"image": str(image)}
        self._image, self._memory = image, memory
        self._user = containers.user_inside(as_root)
        self._students = itertools.count(containers.STUDENT)

    def start(
        self, runs: Sequence[Run], lease: Lease, folder: Path, settings: Mapping[str, str]
    ) -> Container:
        """Start a worker in a container that has what `runs` need of the course."""
        if lease.gpus:
            with (
                docker_engine.connect() as client
            ):  # whoever had them before us may have been killed
                containers.remove_orphans(client)
        lesson = runs[0].lesson
        attempts = folder / lesson.name
        attempts.mkdir(parents=True, exist_ok=True)
        ranks = max(int(run.parameters.get("world_size", 1)) for run in runs)
        options = containers.hardened(
            self._memory,
            user=self._another_user(),
            pids=containers.PIDS + PIDS_PER_RANK * ranks,
            environment={**settings, "PYTHONPATH": COURSE},
            gpus=lease.gpus,
        )
        # The worker itself is: what a lesson leaves comes back to it, and an init of Docker's would
        # have the lesson's user, to whom its ends of the worker's pipes would be open.
        options["init"] = False
        options["name"] = containers.unique_name(lesson.name)
        shown = {f"{COURSE}/ci/{name}": CODE / name for name in BESIDE_THE_LESSON} | {
            f"{COURSE}/lessons/{path.name}": path for path in _wanted(lesson.path)
        }
        self._require_readable(shown.values())
        options["mounts"] = [
            *(containers.mount(path, target) for target, path in shown.items()),
            containers.mount(attempts, ATTEMPTS, writable=True),
        ]
        return Container(self._image, options)

    def identity(self) -> str:
        """The image, which stands for all that is in it, the user, and what we pass on to it."""
        passed_on = {n: v for n, v in os.environ.items() if containers.PASSED_ON.fullmatch(n)}
        return keys.digest("lab", self._image.id, self._user, passed_on)

    def lesson(self, path: Path) -> str:
        """Its place in the container."""
        return f"{COURSE}/lessons/{path.name}"

    def reclaim(self, path: Path) -> None:
        """Make it the caller's again, and what is in it."""
        for part in (path, *path.iterdir()):
            containers.change_owner(part, f"{os.getuid()}:{os.getgid()}")

    def _another_user(self) -> str:
        """Where we are root, each container has a student of its own.

        The runs of a sweep may go on side by side, and are not to write in each other's attempts.
        """
        if os.getuid() or self._user == "0:0":
            return self._user
        student = next(self._students)
        return f"{student}:{student}"

    def _require_readable(self, paths: Iterable[Path]) -> None:
        """That a student may read what root may."""
        if os.getuid() == 0 and self._user != "0:0":
            for path in paths:
                wanted = 0o5 if path.is_dir() else 0o4
                if path.stat().st_mode & wanted != wanted:
                    raise MachineError(
                        f"{path} is root's alone, and the lab's user can't read it: "
                        f"chmod -R o+rX {path}, or say --as-root"
                    )


def _wanted(lesson: Path) -> list[Path]:
    """The lesson and what it may import or read: not the other lessons, not what is expected."""
    expected = lesson.parent / "expected"
    return [
        lesson,
        *(
            path
            for path in sorted(lesson.parent.iterdir())
            if path.name[0] not in "._"
            and path.suffix != ".py"
            and os.path.exists(path)  # no link to nowhere, or in a circle  # noqa: PTH110
            and not (expected.exists() and path.samefile(expected))
        ),
    ]
