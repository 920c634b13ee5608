"""What `invoke doctor` has found, judged: rows with a verdict, and a remedy where not ok.

A row that fails means that the course can't run at its place; one that warns, that it can, but
worse than it should.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from ci.doctor.probe import Fact
from ci.plan.gpus import Gpu

OK, WARN, FAIL, ABSENT = "ok", "warn", "fail", "not here"
MACHINE, LAB, HERE = "this machine", "in the lab", "outside the lab"

GIB = 2**30
SHM = GIB  # what the lab's containers have; batches of 8 MB fail in Docker's default of 64 MB
CUDA = "13.0"  # of the torch in docker/cuda.txt, where no torch could be asked
DRIVERS = {12: "525", 13: "580"}  # the oldest for a CUDA, by NVIDIA's CUDA compatibility guide
TOOLKIT = "1.17.8"  # mends CVE-2025-23266, by which an image becomes root on the machine
ERROR = 1e-5  # of sums of 1024 float32 products: their order costs 4e-7, TF32 would cost 3e-4
LOOKS = {  # what to do where one goes wrong
    "torch": "install it anew: build-lab --no-cache, or pip install -e '.[here]'",
    "GPUs": "mend the driver, or say --gpus none",
    "matmul": "mend the driver, or leave that GPU out: --gpus device=…",
    "all-reduce": "on GPUs, see whether NCCL_P2P_DISABLE=1 invoke doctor is ok",
}
SEE = "python -P -m ci.doctor.probe, which tells more"


@dataclass(frozen=True)
class Row:
    """What was found of one thing, at a place, and what to do where it is not ok."""

    place: str
    what: str
    verdict: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.found + (f"\n→ {self.remedy}" if self.remedy else "")


def fails(rows: Iterable[Row]) -> bool:
    """Whether the course can't run, by these rows."""
    return any(row.verdict == FAIL for row in rows)


def able(rows: Sequence[Row]) -> str:
    """The first place among those looked at where the course can run; empty where there is none."""
    places = dict.fromkeys(row.place for row in rows if row.place != MACHINE)
    bad = {row.place for row in rows if fails([row])}
    return next((place for place in places if not bad & {place, MACHINE}), "")


def amount(place: str, what: str, there: int, wanted: int, found: str, remedy: str) -> Row:
    """Something of which there are `there` bytes where `wanted` would do."""
    if there >= wanted:
        return Row(place, what, OK, found)
    return Row(place, what, WARN, f"{found}; {gib(wanted)} would do", remedy)


def gib(number: int) -> str:
    """Bytes, for people."""
    return f"{number / GIB:.1f} GiB"


def driver(place: str, version: str, cuda: str) -> Row:
    """NVIDIA's driver, against the CUDA that torch is built for."""
    wanted = DRIVERS.get(Version(cuda).major, DRIVERS[max(DRIVERS)])
    found = f"{version or 'version unknown'}; torch's CUDA {cuda} wants {wanted} or newer"
    return _version(place, "NVIDIA driver", version, wanted, found)


def toolkit(version: str) -> Row:
    """NVIDIA's Container Toolkit, against the version that is safe to use."""
    found = f"{version or 'version unknown'}; {TOOLKIT} mends CVE-2025-23266"
    return _version(LAB, "NVIDIA toolkit", version, TOOLKIT, found)


def _version(place: str, what: str, version: str, wanted: str, found: str) -> Row:
    try:
        old = Version(version) < Version(wanted)
    except InvalidVersion:
        return Row(place, what, WARN, found, f"see that it is {wanted} or newer")
    if old:
        return Row(place, what, FAIL, found, f"install {wanted} or newer")
    return Row(place, what, OK, found)


def gpu(place: str, gpu: Gpu, memory: str, capability: str, arches: Sequence[str]) -> Row:
    """A GPU, against the architectures that torch has code for, where they are known."""
    what = f"GPU {gpu.index}"
    found = f"{gpu.name}, {memory or 'memory unknown'}, capability {capability or 'unknown'}"
    if arches and not any(_runs(arch, capability) for arch in arches):
        found += f"; torch has code for {', '.join(arches)}"
        return Row(place, what, FAIL, found, "leave it out: --gpus device=…, or --gpus none")
    return Row(place, what, OK, found)


def _runs(arch: str, capability: str) -> bool:
    """Whether a GPU runs code for `arch`: of its own generation, or of any earlier one as PTX."""
    parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch)
    if not parts or not re.fullmatch(r"\d+\.\d+", capability):
        return True  # we can't know; its product will tell
    major, minor = map(int, capability.split("."))
    earliest = (int(parts[2]), int(parts[3]))
    if parts[4]:  # 90a: for that one only
        return (major, minor) == earliest
    return (major, minor) >= earliest and (parts[1] == "compute" or major == earliest[0])


def inside(place: str, granted: Sequence[Gpu], facts: Iterable[Fact]) -> Iterator[Row]:
    """What a probe has found at a place where a lesson would get the GPUs `granted`."""
    judges: dict[str, Callable[..., Iterator[Row]]] = {
        "surroundings": _surroundings,
        "torch": _torch,
        "GPUs": _gpus,
        "matmul": _matmul,
        "all-reduce": _all_reduce,
    }
    for fact in facts:
        if "fault" in fact:
            remedy = LOOKS.get(fact["look"], SEE)
            yield Row(place, fact["look"], FAIL, fact["fault"], remedy)
        else:
            yield from judges[fact["look"]](place, granted, fact)


def _torch(place: str, granted: Sequence[Gpu], fact: Fact) -> Iterator[Row]:
    version, cuda = fact["version"], fact["cuda"]
    if granted and not cuda:
        remedy = "install torch's CUDA build, or say --gpus none"
        yield Row(place, "torch", FAIL, f"{version} is a CPU build, and there are GPUs", remedy)
    else:
        found = f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
        yield Row(place, "torch", OK, found)


def _gpus(place: str, granted: Sequence[Gpu], fact: Fact) -> Iterator[Row]:
    if len(fact["names"]) < len(granted):
        found = f"torch can use {len(fact['names'])} of {len(granted)}"
        yield Row(place, "GPUs", FAIL, found, LOOKS["GPUs"])
    elif fact["apart"]:
        pairs = ", ".join(f"{a} to {b}" for a, b in fact["apart"])
        remedy = "switch it on (IOMMU, PCIe ACS); NCCL goes by the slower shared memory"
        yield Row(place, "peer access", WARN, f"none from GPU {pairs}", remedy)
    elif len(granted) > 1:
        yield Row(place, "peer access", OK, "between all GPUs")


def _matmul(place: str, _: Any, fact: Fact) -> Iterator[Row]:
    what = f"matmul, cuda:{fact['device']}"
    found = f"{fact['error']:.1e} off the CPU's, of {ERROR:.0e} allowed"
    if fact["error"] <= ERROR:  # a NaN is not
        yield Row(place, what, OK, found)
    else:
        yield Row(place, what, FAIL, found, LOOKS["matmul"])


def _all_reduce(place: str, _: Any, fact: Fact) -> Iterator[Row]:
    found = f"{fact['ranks']} ranks, {fact['backend']}: {1000 * fact['seconds']:.1f} ms for 4 MiB"
    yield Row(place, "all-reduce", OK, found)


def _surroundings(place: str, _: Any, fact: Fact) -> Iterator[Row]:
    if fact["shm"] is not None:
        found = f"{gib(fact['shm'])} in /dev/shm"
        remedy = "mount -o remount,size=1g /dev/shm"
        yield amount(place, "shared memory", fact["shm"], SHM, found, remedy)
    network = ", ".join(name for name in fact["interfaces"] if not name.startswith("lo"))
    root = "read-only root" if fact["read_only"] else "writable root"
    found = f"uid {fact['uid']}, {f'network {network}' if network else 'no network'}, {root}"
    if place == HERE:
        remedy = "--on lab, for lessons that you don't trust"
        yield Row(place, "isolation", ABSENT, found, remedy)
    elif fact["uid"] == 0 or network or not fact["read_only"]:
        remedy = "use Docker's own engine: this one ignores what keeps lessons in"
        yield Row(place, "isolation", FAIL, found, remedy)
    else:
        yield Row(place, "isolation", OK, found)
