"""What a result depends on, as three digests: where one is the same, so is what it stands for.

The run key is of an execution: the lesson and all that it may import or read, its parameters and
devices, our code that executes it, the machine and the place. The check key is of a verdict: that,
the expected file, our code that compares, and the packages it uses. The handout key is of a page:
that, our code that sets it, and the templates.

What none of them sees: a package that was edited where it is installed; and what a lesson reads of
hidden files, of files outside `lessons/`, of variables of its own, of the clock and the network.
"""

import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ci.plan.planner import Run

CODE = Path(__file__).parents[1]
# Packages of the pipeline by the step that they take part in.
EXECUTES = ("errors.py", "lesson", "plan", "lab", "execute", "worker")
JUDGES = ("judge",)
SETS = ("atomic.py", "handout")
# Of the caller's environment: what libraries read when they are imported or compute.
SETTINGS = re.compile(
    r"(ATEN|BLIS|CUBLAS|CUDA|CUDNN|DNNL|DYLD|GLOO|GOMP|KMP|LC|LD|MKL|MPL|NCCL|NPY|NVIDIA|OMP"
    r"|ONEDNN|OPENBLAS|PYTHON|PYTORCH|TORCH|TORCHINDUCTOR|TP|TRITON)_?\w*|LANG|LANGUAGE|TZ"
)
OURS = {  # of those, what is set for each run in its turn
    *("CUDA_VISIBLE_DEVICES", "MPLBACKEND", "PYTHONUNBUFFERED", "OMP_WAIT_POLICY"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
}


@dataclass(frozen=True)
class Keys:
    """The three keys of a run."""

    run: str
    check: str
    handout: str


def digest(*parts: object) -> str:
    """A digest of plain values, in their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Around:
    """What all runs of a plan depend on, as digests: to execute, to judge, and to set them."""

    execute: str
    judge: str
    set: str


def around(place: str) -> Around:
    """What is on the disk now, for runs at a place with this identity."""
    return Around(
        execute=digest(place, machine(), code(EXECUTES)),
        judge=digest(code(JUDGES), sys.version, packages(tuple(sys.path))),
        set=digest(code(SETS)),
    )


def of(run: "Run", around: Around) -> Keys:
    """The keys of `run`, from what stands on the disk now."""
    lesson, gpus = run.lesson.path, [gpu.name for gpu in run.gpus]
    asked = [run.lesson.digest, dict(run.parameters), gpus, run.threads]
    expected = [path for path in _walk(lesson.parent / "expected") if _is_mine(path, lesson)]
    executed = digest(asked, around.execute, list(contents(inputs(lesson))))
    judged = digest(executed, around.judge, list(contents(expected)))
    return Keys(executed, judged, digest(judged, around.set))


def inputs(lesson: Path) -> list[Path]:
    """The lesson's script and the files of its folder that it may import or read.

    Other lessons are not among them, unless one of these files names them, nor is what is expected.
    """
    found = [path for path in _walk(lesson.parent) if not _is_script(path, lesson.parent)]
    found = [path for path in found if lesson.parent / "expected" not in path.parents]
    texts = b"\0".join(path.read_bytes() for path in (lesson, *found) if path.suffix == ".py")
    others = [path for path in lesson.parent.glob("*.py") if _is_script(path, lesson.parent)]
    named = [path for path in others if path != lesson and path.stem.encode() in texts]
    return sorted([lesson, *found, *named])


def _is_script(path: Path, folder: Path) -> bool:
    """Whether it is a lesson, as `course.find` finds them."""
    return path.parent == folder and path.suffix == ".py" and path.name[0] not in "._"


def _is_mine(expected: Path, lesson: Path) -> bool:
    """Whether a file of `expected/` is this lesson's, or anybody's."""
    return expected.stem == lesson.stem or not (lesson.parent / expected.name).exists()


def _walk(folder: Path) -> Iterator[Path]:
    """The files below `folder`, those of linked folders too, in order."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(name for name in folders if _counts(name))
        seen.add(real)  # links in a circle come to an end
        paths = (Path(here, name) for name in sorted(names) if _counts(name))
        yield from (path for path in paths if path.is_file())


def _counts(name: str) -> bool:
    """Whether it is part of the course: hidden files are editors' and Jupyter's."""
    return not name.startswith(".") and name != "__pycache__"


def contents(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Each file's path and the digest of its bytes."""
    for path in paths:
        yield str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def code(names: Sequence[str]) -> list[tuple[str, str]]:
    """The files of packages and modules of the pipeline, templates too, and their digests."""
    parts = [CODE / name for name in names]
    paths = [path for part in parts for path in ([part] if part.is_file() else _walk(part))]
    return [(str(Path(name).relative_to(CODE)), found) for name, found in contents(paths)]


def machine() -> list[str]:
    """The processor, with what it can do, and the GPUs' driver."""
    facts = [platform.system(), platform.machine()]
    with suppress(OSError):
        info = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        facts += re.findall(r"(?m)^(?:model name|flags|Features)\s*:.*", info)
    with suppress(OSError):
        facts.append(Path("/proc/driver/nvidia/version").read_text())
    return facts


def here() -> str:
    """The identity of this machine as a place: interpreter, packages, libraries' settings."""
    libc = ""
    with suppress(ValueError, AttributeError, OSError):
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return digest("here", sys.version, libc, packages(tuple(sys.path)), settings(os.environ))


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the caller's environment a lesson's libraries may read."""
    return {n: v for n, v in environment.items() if SETTINGS.fullmatch(n) and n not in OURS}


@functools.cache
def _record(path: str, _: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def packages(path: Sequence[str]) -> list[tuple[str, str]]:
    """The installed distributions by the digests of their RECORD files, and torch's build.

    RECORD holds the digest of each file that was installed; where a system's packager has left it
    out, what it says of the version has to do.
    """
    found = []
    for folder in filter(os.path.isdir, path):
        for name in sorted(os.listdir(folder)):  # noqa: PTH208
            if name.endswith((".dist-info", ".egg-info", ".pth")):
                found.append((name, _described(f"{folder}/{name}")))
    return [*found, *_torch(path)]


def _described(path: str) -> str:
    """Asked of each package after each run, so it makes no `Path` of each."""
    for name in (f"{path}/RECORD", f"{path}/METADATA", f"{path}/PKG-INFO", path):
        with suppress(OSError):
            return _record(name, os.stat(name).st_mtime_ns)  # noqa: PTH116
    return ""


def _torch(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """torch's own word on its build, and the sizes and dates of its libraries."""
    spec = PathFinder.find_spec("torch", list(path))
    if spec and spec.origin:
        folder = Path(spec.origin).parent
        yield from contents(filter(Path.is_file, [folder / "version.py"]))
        for library in sorted(folder.glob("lib/*")):
            found = library.stat()
            yield library.name, f"{found.st_size} {found.st_mtime_ns}"
