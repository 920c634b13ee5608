"""From `--gpus auto | all | none | 2 | device=0,2` to the GPUs that a run gets: its lease."""

import csv
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.errors import MachineError, UsageError
from ci.lesson.reader import Lesson


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine. `index` and `uuid` are NVIDIA's."""

    index: str
    uuid: str
    name: str


@dataclass(frozen=True)
class Request:
    """What `--gpus` asked for. `strict` where the lack of a GPU is the machine's fault."""

    text: str
    count: int | None = None
    ids: tuple[str, ...] = ()

    @property
    def strict(self) -> bool:
        """Whether a lesson that finds too few GPUs fails the command (exit status 3)."""
        return self.text not in ("auto", "none")


def parse(text: str) -> Request:
    """Read the value of `--gpus`. Raises UsageError."""
    if text in ("auto", "all", "none"):
        return Request(text)
    if text.isdecimal() and int(text) > 0:
        return Request(text, count=int(text))
    kind, _, ids = text.partition("=")
    chosen = tuple(word.strip() for word in ids.split(","))
    if kind == "device" and all(chosen) and len(set(chosen)) == len(chosen):
        return Request(text, ids=chosen)
    raise UsageError(f"--gpus {text}: there are auto, all, none, a number, device=0,2")


def present() -> list[Gpu]:
    """The NVIDIA GPUs that this process may use, as the driver numbers them.

    None where the machine has none; MachineError where it has one that the driver can't reach.
    """
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    tool = shutil.which("nvidia-smi")
    if not tool:
        if devices:
            raise MachineError(f"/dev/{devices[0]} is there, but no nvidia-smi: mend the driver")
        return []
    query = [tool, "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode != 0:
        if devices:
            fault = (answer.stdout + answer.stderr).strip().splitlines()
            raise MachineError(f"nvidia-smi: {fault[0] if fault else 'failed'}: mend the driver")
        return []
    rows = csv.reader(answer.stdout.splitlines(), skipinitialspace=True)
    return _visible([Gpu(*row) for row in rows if len(row) == 3])


def ask(*fields: str) -> dict[str, list[str]]:
    """What nvidia-smi says in these fields of its query, by UUID; nothing where it can't."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return {}
    query = [tool, f"--query-gpu={','.join(('uuid', *fields))}", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    rows = csv.reader(answer.stdout.splitlines(), skipinitialspace=True)
    return {row[0]: row[1:] for row in rows if len(row) == len(fields) + 1}


def _visible(gpus: list[Gpu]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES, set by a scheduler or the user, leaves us, as CUDA reads it.

    MachineError for a word that is no GPU of ours: lessons would see less than was meant.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return gpus
    chosen: list[Gpu] = []
    for word in map(str.strip, allowed.split(",")):
        if word in ("", "-1", "NoDevFiles"):
            break  # it hides all that come after it
        found = [gpu for gpu in gpus if _means(word, gpu)]
        if len(found) != 1 or found[0] in chosen:
            fault = "twice" if found and found[0] in chosen else "is no GPU of this machine"
            raise MachineError(f"CUDA_VISIBLE_DEVICES={allowed}: '{word}' {fault}")
        chosen += found
    return chosen


def _means(word: str, gpu: Gpu) -> bool:
    """Whether CUDA takes a word for this GPU: its number, or how its UUID begins."""
    number = str(int(word)) if word.isdecimal() else ""
    return number == gpu.index or gpu.uuid.startswith(word)


def grant(request: Request) -> tuple[Gpu, ...]:
    """The GPUs of this machine that the request allows. MachineError where it can't be met."""
    return () if request.text == "none" else allowed(request, present())


def allowed(request: Request, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs among `gpus` that the request allows. MachineError where it can't be met."""
    if request.ids:
        known = {gpu.index: gpu for gpu in gpus} | {gpu.uuid: gpu for gpu in gpus}
        if missing := [word for word in request.ids if word not in known]:
            raise MachineError(f"--gpus {request.text}: no GPU '{missing[0]}'; {_there(gpus)}")
        chosen = tuple(dict.fromkeys(known[word] for word in request.ids))
        if len(chosen) < len(request.ids):
            raise UsageError(f"--gpus {request.text}: names a GPU twice")
        return chosen
    if request.count is not None and request.count > len(gpus):
        raise MachineError(f"--gpus {request.text}: {_there(gpus)}")
    return tuple(gpus[: request.count])


def lease(lesson: Lesson, granted: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """What `lesson` gets of them: no more than it can use."""
    return tuple(granted[: lesson.max_gpus])


def _there(gpus: Sequence[Gpu]) -> str:
    ids = ", ".join(gpu.index for gpu in gpus)
    return f"this machine has {len(gpus)}: {ids}" if gpus else "this machine has no NVIDIA GPU"
