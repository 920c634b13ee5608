"""Findings of `invoke doctor`: each has a verdict, and a remedy if something is wrong."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from packaging.version import InvalidVersion, Version

from ci.doctor.probe import Fact
from ci.plan.gpus import Gpu

MACHINE, LAB, HERE = "this machine", "in the lab", "outside the lab"  # places

GIB = 2**30
SHM = GIB  # what the lab's containers have; batches of 8 MB fail with Docker's default of 64 MB
CUDA = "13.0"  # of the torch in docker/cuda.txt, for when no torch could be asked
DRIVERS = {12: "525", 13: "580"}  # the oldest driver per CUDA: NVIDIA's CUDA compatibility guide
TOOLKIT = "1.17.8"  # fixes CVE-2025-23266, which lets an image become root on the machine
ERROR = 1e-5  # of sums of 1024 float32 products: their order costs 4e-7, TF32 would cost 3e-4
REMEDIES = {  # by the probe's test that failed
    "torch": "reinstall it: invoke build-lab --no-cache, or pip install -e '.[here]'",
    "GPUs": "reinstall the driver, or use --gpus none",
    "matmul": "reinstall the driver, or leave that GPU out: --gpus device=…",
    "all-reduce": "on GPUs, try NCCL_P2P_DISABLE=1 invoke doctor",
}
PROBE = "python -P -m ci.doctor.probe shows more"


class Verdict(StrEnum):
    """What a finding means for the course at its place."""

    OK = "ok"
    WARN = "warn"  # the course can run, but not as well as it should
    FAIL = "fail"  # the course cannot run
    ABSENT = "not here"


@dataclass(frozen=True)
class Finding:
    """A subject that was examined at a place, and a remedy if the verdict is not ok."""

    place: str
    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.text + (f"\n→ {self.remedy}" if self.remedy else "")


def has_failed(findings: Iterable[Finding]) -> bool:
    """Return whether one of the findings keeps the course from running."""
    return any(finding.verdict == Verdict.FAIL for finding in findings)


def usable_place(findings: Sequence[Finding]) -> str:
    """Return the first examined place where the course can run; empty if there is none."""
    places = dict.fromkeys(found.place for found in findings if found.place != MACHINE)
    failed = {found.place for found in findings if has_failed([found])}
    return next((place for place in places if not failed & {place, MACHINE}), "")


def format_gib(size: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{size / GIB:.1f} GiB"


def judge_amount(
    place: str, subject: str, available: int, wanted: int, text: str, remedy: str
) -> Finding:
    """Warn if fewer bytes than wanted are available."""
    if available >= wanted:
        return Finding(place, subject, Verdict.OK, text)
    enough = f"{text}; {format_gib(wanted)} would be enough"
    return Finding(place, subject, Verdict.WARN, enough, remedy)


def judge_driver(place: str, version: str, cuda: str) -> Finding:
    """Compare NVIDIA's driver with the CUDA version that torch is built for."""
    wanted = DRIVERS.get(Version(cuda).major, DRIVERS[max(DRIVERS)])
    reason = f"torch's CUDA {cuda} needs {wanted} or newer"
    return _judge_version(place, "NVIDIA driver", version, wanted, reason)


def judge_toolkit(version: str) -> Finding:
    """Compare NVIDIA's Container Toolkit with the oldest version that is safe to use."""
    reason = f"{TOOLKIT} fixes CVE-2025-23266"
    return _judge_version(LAB, "NVIDIA toolkit", version, TOOLKIT, reason)


def _judge_version(place: str, subject: str, version: str, wanted: str, reason: str) -> Finding:
    text = f"{version or 'version unknown'}; {reason}"
    try:
        is_old = Version(version) < Version(wanted)
    except InvalidVersion:
        remedy = f"check that it is {wanted} or newer"
        return Finding(place, subject, Verdict.WARN, text, remedy)
    if is_old:
        return Finding(place, subject, Verdict.FAIL, text, f"install {wanted} or newer")
    return Finding(place, subject, Verdict.OK, text)


def judge_gpu(place: str, gpu: Gpu, memory: str, capability: str) -> Finding:
    """Name a GPU. Whether torch has code for it, the probe's product of matrices shows."""
    text = f"{gpu.name}, {memory or 'memory unknown'}, capability {capability or 'unknown'}"
    if gpu.is_slice:
        text = f"{gpu.name}; a run gets one slice; tests read lists of slices, none ran on one"
    return Finding(place, f"GPU {gpu.index}", Verdict.OK, text)


def judge_kernels(place: str, kernel: str) -> Finding:
    """Judge how runs would start their kernels, as a fork server tells it."""
    if kernel == "forked":
        return Finding(place, "kernels", Verdict.OK, "forked: torch is imported once for all runs")
    if kernel:
        return Finding(place, "kernels", Verdict.WARN, f"{kernel}; so each run imports torch")
    return Finding(place, "kernels", Verdict.FAIL, "the fork server does not start", PROBE)


def judge_facts(place: str, granted: Sequence[Gpu], facts: Iterable[Fact]) -> Iterator[Finding]:
    """Judge what the probe found at a place where lessons would get the GPUs `granted`."""
    judges: dict[str, Callable[[str, Sequence[Gpu], Fact], Iterator[Finding]]] = {
        "surroundings": _judge_surroundings,
        "torch": _judge_torch,
        "GPUs": _judge_gpus,
        "matmul": _judge_matmul,
        "all-reduce": _judge_all_reduce,
    }
    for fact in facts:
        test = fact["test"]
        if "fault" in fact:
            remedy = REMEDIES.get(test, PROBE)
            yield Finding(place, test, Verdict.FAIL, fact["fault"], remedy)
        else:
            yield from judges[test](place, granted, fact)


def _judge_surroundings(place: str, _: Sequence[Gpu], fact: Fact) -> Iterator[Finding]:
    if fact["shm"] is not None:
        text, remedy = f"{format_gib(fact['shm'])} in /dev/shm", "mount -o remount,size=1g /dev/shm"
        yield judge_amount(place, "shared memory", fact["shm"], SHM, text, remedy)
    if fact["attempt"]:
        text = f"the lab's user cannot write them: {fact['attempt']}"
        remedy = "run this command as the engine's user, or use --on here"
        yield Finding(place, "results", Verdict.FAIL, text, remedy)
    network = ", ".join(name for name in fact["interfaces"] if not name.startswith("lo"))
    root = "read-only root" if fact["read_only"] else "writable root"
    text = f"uid {fact['uid']}, {f'network {network}' if network else 'no network'}, {root}"
    verdict, remedy = Verdict.OK, ""
    if place == HERE:
        verdict, remedy = Verdict.ABSENT, "--on lab, for lessons that you do not trust"
    elif fact["uid"] == 0 or network or not fact["read_only"]:
        verdict = Verdict.FAIL
        remedy = "use Docker's own engine: this one ignores the options that isolate lessons"
    yield Finding(place, "isolation", verdict, text, remedy)


def _judge_torch(place: str, granted: Sequence[Gpu], fact: Fact) -> Iterator[Finding]:
    version, cuda = fact["version"], fact["cuda"]
    if granted and not cuda:
        text = f"{version} is a CPU build, but the machine has GPUs"
        remedy = "install torch's CUDA build, or use --gpus none"
        yield Finding(place, "torch", Verdict.FAIL, text, remedy)
    else:
        text = f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
        yield Finding(place, "torch", Verdict.OK, text)


def _judge_gpus(place: str, granted: Sequence[Gpu], fact: Fact) -> Iterator[Finding]:
    if len(fact["names"]) < len(granted):
        text = f"torch can use {len(fact['names'])} of {len(granted)}"
        yield Finding(place, "GPUs", Verdict.FAIL, text, REMEDIES["GPUs"])
    elif fact["apart"]:
        text = f"none from GPU {', '.join(f'{a} to {b}' for a, b in fact['apart'])}"
        remedy = "switch it on (IOMMU, PCIe ACS); until then NCCL uses the slower shared memory"
        yield Finding(place, "peer access", Verdict.WARN, text, remedy)
    elif len(granted) > 1:
        yield Finding(place, "peer access", Verdict.OK, "between all GPUs")


def _judge_matmul(place: str, _: Sequence[Gpu], fact: Fact) -> Iterator[Finding]:
    subject = f"matmul, cuda:{fact['device']}"
    text = f"relative error {fact['error']:.1e}, at most {ERROR:.0e} allowed"
    if fact["error"] <= ERROR:  # false for a NaN
        yield Finding(place, subject, Verdict.OK, text)
    else:
        yield Finding(place, subject, Verdict.FAIL, text, REMEDIES["matmul"])


def _judge_all_reduce(place: str, _: Sequence[Gpu], fact: Fact) -> Iterator[Finding]:
    text = f"{fact['ranks']} ranks, {fact['backend']}: {1000 * fact['seconds']:.1f} ms for 4 MiB"
    yield Finding(place, "all-reduce", Verdict.OK, text)
