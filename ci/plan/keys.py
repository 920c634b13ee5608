"""What a result depends on, as two digests: with the same digest, the result is still valid.

The execution key covers the code cells of a lesson with everything that they may import or read,
its parameters and devices, the pipeline's code that executes it, the machine, and the executor. The
handout key covers the verdict and the pages: the execution, the prose, the expected values, the
code that judges and renders, and the packages of this interpreter.

Neither key sees a package that was edited where it is installed, nor what a lesson reads from
hidden files, its own environment variables, the clock or the network. A lesson that reads a file
outside `lessons/` fails (`ci.worker.outside`).
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

from ci.lesson.addresses import addresses
from ci.lesson.lesson import Lesson
from ci.plan.planner import Run

CODE = Path(__file__).parents[1]
PROJECT = "pyproject.toml"  # the only file outside lessons/ that an oracle can read
# Packages and modules of the pipeline, by the step in which they take part.
EXECUTES = ("errors.py", "lesson", "plan", "lab", "execute", "worker")
JUDGES_AND_RENDERS = ("machine", "judge", "handout")
# Variables of the caller's environment that libraries read at import or while they compute.
SETTINGS = re.compile(
    r"(ATEN|BLIS|CUBLAS|CUDA|CUDNN|DNNL|DYLD|GLOO|GOMP|KMP|LC|LD|MKL|MPL|NCCL|NPY|NVIDIA|OMP"
    r"|ONEDNN|OPENBLAS|PYTHON|PYTORCH|TORCH|TORCHINDUCTOR|TP|TRITON)_?\w*|LANG|LANGUAGE|TZ"
)
SET_FOR_EACH_RUN = {  # among these variables
    *("CUDA_VISIBLE_DEVICES", "MPLBACKEND", "PYTHONUNBUFFERED", "OMP_WAIT_POLICY"),
    "PYTHONDONTWRITEBYTECODE",
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
}


@dataclass(frozen=True)
class Keys:
    """The two keys of a run, or digests of what the keys of all runs of a plan depend on."""

    execution: str
    handout: str


def digest(*parts: object) -> str:
    """A digest of plain data, which depends on the order of `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def environment(executor: Mapping[str, object]) -> Keys:
    """The environment of runs on this machine now; `executor` holds the executor's facts."""
    return Keys(
        execution=digest(executor, machine(), code(EXECUTES)),
        handout=digest(
            code(JUDGES_AND_RENDERS), sys.version, packages(tuple(sys.path)), addresses()
        ),
    )


def run_keys(run: Run, environment: Keys) -> Keys:
    """The keys of `run`, from the files as they are now."""
    lesson, gpus = run.lesson.path, [gpu.name for gpu in run.gpus]
    asked = [_code_cells(run.lesson), dict(run.parameters), gpus, run.threads]
    expected = [path for path in _files(lesson.parent / "expected") if _serves(path, lesson)]
    expected += [path for path in (lesson.parents[1] / PROJECT,) if _name_it(PROJECT, expected)]
    found = inputs(lesson)
    read = [path for path in found if path != lesson or _reads_itself(run.lesson, found)]
    execution = digest(asked, environment.execution, list(contents(read)))
    shown = [run.lesson.digest, list(contents([lesson, *expected]))]
    return Keys(execution, digest(execution, environment.handout, shown))


def _reads_itself(lesson: Lesson, read: Sequence[Path]) -> bool:
    """Whether the code of a lesson, or a file that it may import, names the lesson's script."""
    cells = [cell.source for cell in lesson.notebook.cells if cell.cell_type == "code"]
    files = [path for path in read if path.suffix == ".py" and path != lesson.path]
    return any(lesson.name in text for text in cells) or _name_it(lesson.name, files)


def _code_cells(lesson: Lesson) -> list[tuple[str, dict[str, object]]]:
    """What is executed of a lesson: its code cells with their attributes, but not their lines."""
    cells = [cell for cell in lesson.notebook.cells if cell.cell_type == "code"]
    cells += [exercise.blank for exercise in lesson.exercises]
    attributes = [{k: v for k, v in cell.metadata.items() if k != "line"} for cell in cells]
    return [(cell.source, found) for cell, found in zip(cells, attributes, strict=True)]


def inputs(lesson: Path) -> list[Path]:
    """The lesson's script and the files of its folder that it may import or read.

    Neither the expected values nor the other lessons, unless one of these files names a lesson.
    """
    found = [path for path in _files(lesson.parent) if not _is_script(path, lesson.parent)]
    found = [path for path in found if lesson.parent / "expected" not in path.parents]
    texts = b"\0".join(path.read_bytes() for path in (lesson, *found) if path.suffix == ".py")
    others = [path for path in lesson.parent.glob("*.py") if _is_script(path, lesson.parent)]
    named = [path for path in others if path != lesson and path.stem.encode() in texts]
    return sorted([lesson, *found, *named])


def _name_it(name: str, paths: Iterable[Path]) -> bool:
    """Whether one of these files contains the name of a file, so that it may read it."""
    return any(name.encode() in path.read_bytes() for path in paths if path.suffix == ".py")


def _is_script(path: Path, folder: Path) -> bool:
    return path.parent == folder and path.suffix == ".py" and path.name[0] not in "._"


def _serves(expected: Path, lesson: Path) -> bool:
    """Whether a file of `expected/` belongs to this lesson, or to no other lesson."""
    return expected.stem == lesson.stem or not (lesson.parent / expected.name).exists()


def _files(folder: Path) -> Iterator[Path]:
    """The files below `folder`, linked folders included, in order."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(filter(_is_visible, folders))
        seen.add(real)  # so that a circle of links comes to an end
        paths = (Path(here, name) for name in sorted(filter(_is_visible, names)))
        yield from (path for path in paths if path.is_file())


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__"


def contents(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Each path with the digest of its bytes."""
    for path in paths:
        yield str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def code(names: Sequence[str]) -> list[tuple[str, str]]:
    """The files of these packages and modules of `ci`, with their digests."""
    parts = [CODE / name for name in names]
    paths = [path for part in parts for path in ([part] if part.is_file() else _files(part))]
    return [(str(Path(name).relative_to(CODE)), found) for name, found in contents(paths)]


def machine() -> list[str]:
    """The processor with its features, and the GPUs' driver."""
    facts = [platform.system(), platform.machine()]
    with suppress(OSError):
        info = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        facts += re.findall(r"(?m)^(?:model name|flags|Features)\s*:.*", info)
    with suppress(OSError):
        facts.append(Path("/proc/driver/nvidia/version").read_text())
    return facts


def settings(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a lesson's libraries may read."""
    return {
        name: value
        for name, value in variables.items()
        if SETTINGS.fullmatch(name) and name not in SET_FOR_EACH_RUN
    }


def packages(path: Sequence[str]) -> list[tuple[str, str]]:
    """The distributions installed on `path` with digests of their RECORD files, and torch's build.

    RECORD holds the digest of each installed file. Where a system's packager has left it out, the
    metadata with the version stands in.
    """
    found = []
    for folder in filter(os.path.isdir, path):
        for name in sorted(os.listdir(folder)):  # noqa: PTH208
            if name.endswith((".dist-info", ".egg-info", ".pth")):
                found.append((name, _distribution_digest(f"{folder}/{name}")))
    return [*found, *_torch(path)]


def _distribution_digest(path: str) -> str:
    """Called for each package after each run, so it avoids creating a `Path` each time."""
    for name in (f"{path}/RECORD", f"{path}/METADATA", f"{path}/PKG-INFO", path):
        with suppress(OSError):
            return _file_digest(name, os.stat(name).st_mtime_ns)  # noqa: PTH116
    return ""


@functools.cache
def _file_digest(path: str, _mtime_ns: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _torch(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """torch's description of its build, and the sizes and dates of its libraries."""
    spec = PathFinder.find_spec("torch", list(path))
    if spec and spec.origin:
        folder = Path(spec.origin).parent
        yield from contents(filter(Path.is_file, [folder / "version.py"]))
        for library in sorted(folder.glob("lib/*")):
            found = library.stat()
            yield library.name, f"{found.st_size} {found.st_mtime_ns}"
