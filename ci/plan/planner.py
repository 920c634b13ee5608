"""The runs of a plan: lessons x parameters x GPUs."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ci.errors import UsageError, suggest
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import LONGEST_S, Value
from ci.plan import memory
from ci.plan.gpus import Gpu

TIMEOUT_S = 600.0
LAUNCHES = 16  # of ranks: no lesson of the course has more
LAUNCH_S, LAUNCH_GPU_S = 5.0, 2.0  # of each on GPUs: CUDA, NCCL's connections; and more per GPU
PYTHON = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """One execution of a lesson with values for its parameters.

    `chosen` are the names of the parameters that the user set. `gpus` are the GPUs to lease; with
    fewer than `gpus_needed`, the run is skipped. `threads` is the number of threads per process.
    """

    lesson: Lesson
    parameters: Mapping[str, Value]
    chosen: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    gpus_needed: int = 0
    threads: int = 1
    timeout_s: float = TIMEOUT_S

    @property
    def key(self) -> str:
        """Identifies the run among those of its lesson: parameters, number of GPUs, threads."""
        identity = [dict(self.parameters), len(self.gpus), self.threads]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The parameters that the user set, as typed after `-p`; empty for the defaults."""
        return " ".join(f"{name}={self.parameters[name]}" for name in self.chosen)

    @property
    def name(self) -> str:
        """Lesson and label, the name of the run in reports."""
        return f"{self.lesson.name} {self.label}".rstrip()

    @property
    def device(self) -> str:
        """The names of its GPUs, or `cpu`, as people read it."""
        names = [gpu.name for gpu in self.gpus]
        return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0] if names else "cpu"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that fix its threads, and keep bytecode out of `lessons/`.

        Waiting OpenMP threads must sleep: spinning threads slow down the other lessons.
        """
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        numbers = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as in nvidia-smi
        return {**threads, **numbers, "OMP_WAIT_POLICY": "PASSIVE", **PYTHON}

    @property
    def lacks_gpus(self) -> bool:
        """Whether it has to be skipped; its status is then `needs N GPUs`."""
        return len(self.gpus) < self.gpus_needed

    @property
    def is_default(self) -> bool:
        """Whether the user set no parameter; only such a run makes handouts."""
        return not self.chosen


def runs(
    lessons: Sequence[Lesson],
    settings: Iterable[str],
    granted: Sequence[Gpu],
    *,
    timeout_s: float | None = None,
    slots: int = 1,
    threads: int | None = None,
) -> list[Run]:
    """The runs of `lessons`: one for each combination of the values in `settings`.

    A setting such as `size=2,4` applies to the lessons with that parameter. `granted` are the GPUs
    to lease from. Each run has `threads` threads; by default, `slots` runs execute in parallel and
    share the cores of this machine. Raises UsageError for a setting that no lesson has, or a value
    that is not valid.
    """
    texts = _parse_settings(lessons, settings)
    threads = threads or max(1, (os.cpu_count() or 1) // slots)
    return [
        _run(lesson, chosen, granted, threads, timeout_s)
        for lesson in lessons
        for chosen in _combinations(lesson, texts)
    ]


def count_slots(jobs: str, granted: Sequence[Gpu], capacity: int | None = None) -> int:
    """How many runs execute in parallel: `--jobs`, or the `capacity` of a cluster.

    On this machine it is one per GPU, or one per core without GPUs, and the memory of the machine
    limits the number.
    """
    if jobs or capacity:
        return int(_positive(jobs, "--jobs", whole=True)) if jobs else capacity or 1
    cores = os.cpu_count() or 1
    return max(1, min(len(granted) or cores, cores, memory.total() // memory.RUN_BYTES))


def default_timeout(gpus: int) -> float:
    """The seconds that a run may take if neither the user nor its lesson says so.

    On GPUs each launch of ranks starts CUDA in a process per GPU and connects them by NCCL, which
    takes longer the more GPUs the machine has: 712 s with one, 936 s with eight.
    """
    return TIMEOUT_S + (LAUNCHES * (LAUNCH_S + LAUNCH_GPU_S * gpus) if gpus else 0)


def parse_timeout(timeout: str) -> float | None:
    """The seconds of `--timeout`; None if the option is empty."""
    return _positive(timeout, "--timeout") if timeout else None


def _positive(text: str, option: str, *, whole: bool = False) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = 0
    if not (0 < number <= LONGEST_S):
        kind = "a whole number" if whole else "a number of seconds"
        raise UsageError(f"{option} {text}: must be {kind} from 1 to {LONGEST_S:.0f}")
    return number


def _parse_settings(lessons: Sequence[Lesson], settings: Iterable[str]) -> dict[str, list[str]]:
    """The values of each setting as they were typed, by the names of parameters."""
    known = sorted({name for lesson in lessons for name in lesson.parameters})
    texts: dict[str, list[str]] = {}
    for setting in settings:
        name, _, values = setting.partition("=")
        name = name.strip()
        if not values:
            raise UsageError(f"-p {setting}: must be name=value or name=value,value")
        if name not in known:
            raise UsageError(
                f"-p {name}: no selected lesson has this parameter{suggest(name, known)}"
            )
        if name in texts:
            raise UsageError(f"-p {name}: given twice; write several values as {name}=1,2")
        texts[name] = values.split(",")
    return texts


def _combinations(lesson: Lesson, texts: Mapping[str, list[str]]) -> Iterator[dict[str, Value]]:
    """Each combination of the values for parameters of `lesson`, in order, without duplicates."""
    names = [name for name in texts if name in lesson.parameters]
    parsed = [map(lesson.parameters[name].parse, texts[name]) for name in names]
    for device in texts.get("device", ()):
        if device.startswith("cuda:"):
            raise UsageError(
                f"-p device={device}: a run sees only the GPUs that it leases; choose them by "
                f"--gpus device={device.removeprefix('cuda:')}, with -p device=cuda"
            )
    for values in itertools.product(*map(dict.fromkeys, parsed)):
        yield dict(zip(names, values, strict=True))


def _run(
    lesson: Lesson,
    chosen: Mapping[str, Value],
    granted: Sequence[Gpu],
    threads: int,
    timeout_s: float | None,
) -> Run:
    device, ranks = str(chosen.get("device", "")), int(chosen.get("world_size", lesson.max_gpus))
    leased = () if device == "cpu" else tuple(granted[: min(lesson.max_gpus, ranks)])
    if any(gpu.is_slice for gpu in leased):
        leased = leased[:1]
    needed = max(lesson.min_gpus, device == "cuda")
    if leased and "world_size" in chosen:
        needed = max(needed, ranks)
    from_lease: dict[str, Value] = {
        "device": "cuda",
        "world_size": len(leased),
        "gpus": len(leased),
    }
    filled = {name: from_lease[name] for name in from_lease if leased and name in lesson.parameters}
    return Run(
        lesson=lesson,
        parameters={**lesson.defaults, **filled, **chosen},
        chosen=tuple(chosen),
        gpus=leased,
        gpus_needed=needed,
        threads=threads,
        timeout_s=timeout_s or lesson.timeout_s or default_timeout(len(leased)),
    )
