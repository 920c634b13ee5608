"""From `--gpus auto | all | none | 2 | device=0,2` to the GPUs that a run gets: its lease."""

import csv
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.errors import MachineError, UsageError
from ci.machine.program import answer, ask

GPU_LINE = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[\w-]+)\)")
SLICE_LINE = re.compile(r"MIG (\S+) +Device +\d+: \(UUID: (MIG-[\w/-]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine, or a MIG slice of one. `index` and `uuid` are NVIDIA's."""

    index: str
    uuid: str
    name: str

    @property
    def is_slice(self) -> bool:
        """Whether it is a MIG slice, of which a process can use only one."""
        return self.uuid.startswith("MIG-")


@dataclass(frozen=True)
class Request:
    """The value of `--gpus`: a word, a number of GPUs (`count`), or their indices or UUIDs."""

    text: str
    count: int | None = None
    ids: tuple[str, ...] = ()

    @property
    def strict(self) -> bool:
        """Whether the command fails (exit status 3) if a lesson needs more GPUs than there are."""
        return self.text not in ("auto", "none")


def parse(text: str) -> Request:
    """Return the value of `--gpus`. Raises UsageError."""
    if text in ("auto", "all", "none"):
        return Request(text)
    if text.isdecimal() and int(text) > 0:
        return Request(text, count=int(text))
    kind, _, ids = text.partition("=")
    chosen = tuple(word.strip() for word in ids.split(","))
    if kind == "device" and all(chosen) and len(set(chosen)) == len(chosen):
        return Request(text, ids=chosen)
    raise UsageError(f"--gpus {text}: expected auto, all, none, a number or device=0,2")


def detect() -> list[Gpu]:
    """Return the NVIDIA GPUs that this process may use, in the driver's order.

    Raises MachineError if the machine has a GPU that the driver cannot reach, or a driver that
    does not answer.
    """
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    tool = shutil.which("nvidia-smi")
    if not tool:
        if devices:
            raise MachineError(f"/dev/{devices[0]} exists, but no nvidia-smi: reinstall the driver")
        return []
    try:
        done = ask(tool, "-L")
    except MachineError as error:
        raise MachineError(
            f"{error}: the driver hangs; restart the machine, or use --gpus none"
        ) from None
    if done.returncode != 0:
        if devices:
            fault, *_ = (done.stdout + done.stderr).strip().splitlines() or ["failed"]
            raise MachineError(f"nvidia-smi: {fault}: reinstall the driver, or use --gpus none")
        return []
    return _visible(_parse(done.stdout))


def _parse(listing: str) -> list[Gpu]:
    """Return the GPUs of `nvidia-smi -L`; slices in place of a GPU that is divided.

    Raises MachineError for a line that names neither, or a GPU twice: a GPU that was left out here
    would be one that nobody misses.
    """
    found: list[Gpu] = []
    index = name = ""
    for line in map(str.strip, listing.splitlines()):
        if match := GPU_LINE.fullmatch(line):
            index, name, uuid = match.groups()
            found.append(Gpu(index, uuid, name))
        elif found and (match := SLICE_LINE.fullmatch(line)):
            if found[-1].index == index:
                found.pop()
            number = sum(gpu.index.startswith(f"{index}:") for gpu in found)
            found.append(Gpu(f"{index}:{number}", match[2], f"{name} MIG {match[1]}"))
        else:
            raise MachineError(f"nvidia-smi -L: {line!r}: reinstall the driver, or use --gpus none")
    if len({gpu.uuid for gpu in found}) < len(found):
        raise MachineError("nvidia-smi -L lists a GPU twice: restart the machine")
    return found


def query(*fields: str) -> dict[str, list[str]]:
    """Return nvidia-smi's values of these fields by UUID; empty if it does not know one of them."""
    names = ",".join(("uuid", *fields))
    output = answer("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader")
    lines = csv.reader(output.splitlines(), skipinitialspace=True)
    return {uuid: values for uuid, *values in lines if len(values) == len(fields)}


def _visible(gpus: list[Gpu]) -> list[Gpu]:
    """Keep the GPUs of CUDA_VISIBLE_DEVICES, which a scheduler or the user sets, in CUDA's order.

    Raises MachineError for a word that means no GPU here: lessons would get fewer than intended.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for word in map(str.strip, visible.split(",")):
        if word in ("", "-1", "NoDevFiles"):
            break  # CUDA ignores the words after it
        found = [gpu for gpu in gpus if _means(word, gpu)]
        if len(found) != 1 or found[0] in chosen:
            fault = "twice" if found and found[0] in chosen else "is no GPU of this machine"
            raise MachineError(f"CUDA_VISIBLE_DEVICES={visible}: '{word}' {fault}")
        chosen += found
    return chosen


def _means(word: str, gpu: Gpu) -> bool:
    """Return whether CUDA reads a word as this GPU: its index, or the beginning of its UUID."""
    number = str(int(word)) if word.isdecimal() else ""
    return number == gpu.index or gpu.uuid.startswith(word)


def grant(request: Request) -> tuple[Gpu, ...]:
    """Return the GPUs of this machine that runs may use. Raises MachineError if there are fewer."""
    return () if request.text == "none" else select(request, detect())


def select(request: Request, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return the GPUs among `gpus` that are requested. Raises MachineError if there are fewer."""
    if request.ids:
        known = {gpu.index: gpu for gpu in gpus} | {gpu.uuid: gpu for gpu in gpus}
        if missing := [word for word in request.ids if word not in known]:
            raise MachineError(f"--gpus {request.text}: no GPU '{missing[0]}'; {_count(gpus)}")
        chosen = tuple(dict.fromkeys(known[word] for word in request.ids))
        if len(chosen) < len(request.ids):
            raise UsageError(f"--gpus {request.text}: names a GPU twice")
        return chosen
    if request.count is not None and request.count > len(gpus):
        raise MachineError(f"--gpus {request.text}: {_count(gpus)}")
    return tuple(gpus[: request.count])


def _count(gpus: Sequence[Gpu]) -> str:
    ids = ", ".join(gpu.index for gpu in gpus)
    return f"this machine has {len(gpus)}: {ids}" if gpus else "this machine has no NVIDIA GPU"
