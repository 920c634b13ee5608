"""`invoke doctor`: examine the machine, the Docker engine and the lab's images.

What a lesson would find in the lab, or outside of it, is tested there by `ci.doctor.probe`.
"""

import contextlib
import json
import queue
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from ci.doctor import diagnosis, slurm, table
from ci.doctor.diagnosis import GIB, HERE, LAB, MACHINE, Finding, Verdict, format_gib, judge_amount
from ci.doctor.probe import DEADLINE_S, LAST, Fact
from ci.errors import MachineError
from ci.execute import executor
from ci.execute.container import ATTEMPT, SERVER, server_code
from ci.execute.executor import Channel
from ci.execute.local import LocalExecutor, Process
from ci.lab import builder, containers, docker_engine, image
from ci.lab.containers import COURSE
from ci.lab.visible import require_readable
from ci.machine import atomic
from ci.machine.program import answer, read_ahead
from ci.plan import gpus
from ci.plan.gpus import Gpu

MEMORY = 4 * GIB  # a lesson with a few ranks, each of which imports torch
RESULTS = GIB  # on disk: many runs of the course
IMAGES = 20 * GIB  # on disk: building the CUDA image needs its packages twice, and their wheels
GRACE_S = 30.0  # after the probe's own deadline, which a process stuck in a driver ignores
PROBE = ("python", "-P", f"{COURSE}/probe.py")  # in a container


def run(on: str, gpu_request: str, docker: Path, build: Path) -> int:
    """Print the findings at the places of `--on` with the GPUs of `--gpus`.

    `docker` and `build` are the folders of these names. Returns the exit status: 3 if the course
    can run at none of these places. Raises UsageError.
    """
    findings = table.show(examine(executor.parse(on), gpus.parse(gpu_request), docker, build))
    return 0 if diagnosis.usable_place(findings) else 3


def examine(on: str, request: gpus.Request, docker: Path, build: Path) -> Iterator[Finding]:
    """Yield the findings: `auto` examines the lab, and if that fails, this machine outside it."""
    granted: tuple[Gpu, ...] = ()
    yield from _examine_machine(build)
    if on == "slurm":
        yield from slurm.examine(request)
        return
    try:
        granted = gpus.grant(request)
        if not granted:
            reason = "--gpus none" if request.text == "none" else "no NVIDIA GPU"
            text = f"{reason}: lessons run on the CPU"
            yield Finding(MACHINE, "GPUs", Verdict.ABSENT, text)
    except MachineError as error:
        yield Finding(MACHINE, "GPUs", Verdict.FAIL, str(error), "try again with --gpus none")
    in_lab = list(_examine_lab(docker, build, granted)) if on != "here" else []
    yield from in_lab
    if on == "here" or (on == "auto" and diagnosis.has_failed(in_lab)):
        yield from _examine_here(granted)


def _examine_machine(build: Path) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    text = f"{format_gib(memory.available)} available of {format_gib(memory.total)}"
    remedy = "close other programs"
    yield judge_amount(MACHINE, "memory", memory.available, MEMORY, text, remedy)
    existing = next(path for path in (build, *build.parents) if path.exists())
    yield _judge_disk(MACHINE, "disk for results", existing, RESULTS, "invoke clean")
    try:
        build.mkdir(parents=True, exist_ok=True)
        with atomic.private_folder(build):
            pass
    except OSError as error:
        text = f"no file can be written in {build}: {error.strerror}"
        yield Finding(MACHINE, "results", Verdict.FAIL, text, "let this user write there")


def _judge_disk(place: str, subject: str, path: Path, wanted: int, remedy: str) -> Finding:
    free = shutil.disk_usage(path).free
    return judge_amount(place, subject, free, wanted, f"{format_gib(free)} free at {path}", remedy)


def _examine_lab(docker: Path, build: Path, granted: Sequence[Gpu]) -> Iterator[Finding]:
    facts: list[Fact] = []
    try:
        with docker_engine.connect() as client:
            yield from _examine_engine(client)
            docker_engine.require_gpus(client, granted)
            images = _examine_images(client, docker, granted)
            yield from images
            if not diagnosis.has_failed(images):
                with _container(client, docker, build, granted, PROBE) as probe:
                    facts = read_facts(probe)
                with _container(client, docker, build, granted, SERVER) as server:
                    yield diagnosis.judge_kernels(LAB, _ask_fork_server(server))
    except (MachineError, OSError) as error:
        yield Finding(LAB, "Docker", Verdict.FAIL, str(error))
    yield from _judge_nvidia(LAB, granted, facts)
    yield from diagnosis.judge_facts(LAB, granted, facts)


def _examine_engine(client: Any) -> Iterator[Finding]:
    """Examine the engine, its disk if that is on this machine, and the command that builds."""
    info = client.info()
    yield _describe_engine(client, info)
    if not (info.get("MemoryLimit", True) and info.get("PidsLimit", True)):
        text = "none on memory or processes: a lesson can use all of the machine's"
        remedy = "use cgroup v2, and delegate its controllers to the engine's user"
        yield Finding(LAB, "limits", Verdict.WARN, text, remedy)
    if "seccomp" not in str(info.get("SecurityOptions")):
        text = "the engine refuses none; the lab refuses those that no lesson needs"
        remedy = "start the engine with its default seccomp profile"
        yield Finding(LAB, "system calls", Verdict.WARN, text, remedy)
    path = Path(info.get("DockerRootDir") or "unknown")
    if client.api.base_url.startswith("http+docker") and path.exists():
        yield _judge_disk(LAB, "disk for images", path, IMAGES, "docker image prune")
    try:
        yield Finding(LAB, "builder", Verdict.OK, builder.find_builder().name)
    except MachineError as error:
        yield Finding(LAB, "builder", Verdict.WARN, str(error))


def _describe_engine(client: Any, info: Mapping[str, Any]) -> Finding:
    """Name the engine; warn of those that the tests of the lab do not run on."""
    version, rootless = client.version(), docker_engine.is_rootless(client)
    kinds = {"Podman": docker_engine.is_podman(client), "rootless": rootless}
    untested = [kind for kind, found in kinds.items() if found]
    containerd = "io.containerd" in str(info.get("DriverStatus"))
    rights = "" if rootless else "; anyone who can use it has root on this machine"
    number, api = version.get("Version", "version unknown"), version.get("ApiVersion", "unknown")
    context = [f"context '{name}'" for name in [docker_engine.context()] if name]
    store = ["containerd image store"] * containerd
    text = f"{', '.join([number, f'API {api}', *context, *untested, *store])}{rights}"
    if cdi := info.get("DiscoveredDevices"):
        text += f"; CDI: {len(cdi)} devices"
    if not untested:
        return Finding(LAB, "Docker engine", Verdict.OK, text)
    remedy = f"{untested[0]}: tried by hand, no test runs on it; if a lesson fails, use --on here"
    return Finding(LAB, "Docker engine", Verdict.WARN, text, remedy)


def _examine_images(client: Any, docker: Path, granted: Sequence[Gpu]) -> list[Finding]:
    """Return a finding per variant. If a run could use neither, the one to build fails."""
    wanted = image.variants(bool(granted))
    findings = {variant: _examine_image(client, variant, docker) for variant in image.VARIANTS}
    if not any(findings[variant].verdict == Verdict.OK for variant in wanted):
        remedy = image.remedy(client, wanted[0])
        findings[wanted[0]] = replace(findings[wanted[0]], verdict=Verdict.FAIL, remedy=remedy)
    return list(findings.values())


def _examine_image(client: Any, variant: str, docker: Path) -> Finding:
    subject = f"{variant} image"
    if not (found := image.built(client, variant)):
        return Finding(LAB, subject, Verdict.ABSENT, "not built")
    current = next(iter(client.images.list(name=image.tag(variant, docker))), None)
    size = docker_engine.field((current or found[0]).attrs, "Size")
    base = (current or found[0]).labels.get(image.BASE_NAME, "an unknown base")
    about = f"{size / 1e9:.2f} GB, on {base}"
    if current:
        return Finding(LAB, subject, Verdict.OK, f"up to date, {about}")
    text = f"none of {docker.name}/ as it is now; the newest: {about}"
    return Finding(LAB, subject, Verdict.WARN, text, image.remedy(client, variant))


def _examine_here(granted: Sequence[Gpu]) -> Iterator[Finding]:
    facts: list[Fact] = []
    try:
        LocalExecutor()  # raises if a package is not installed
        with contextlib.closing(Process("ci.doctor.probe", _visible(granted))) as process:
            facts = read_facts(process)
        with contextlib.closing(Process("ci.worker.server", _visible(granted))) as server:
            yield diagnosis.judge_kernels(HERE, _ask_fork_server(server))
    except MachineError as error:
        yield Finding(HERE, "packages", Verdict.FAIL, str(error))
    yield from _judge_nvidia(HERE, granted, facts)
    yield from diagnosis.judge_facts(HERE, granted, facts)


def _judge_nvidia(place: str, granted: Sequence[Gpu], facts: Iterable[Fact]) -> Iterator[Finding]:
    """Compare the driver with torch's CUDA, and name each GPU."""
    if not granted:
        return
    cuda = next((fact["cuda"] for fact in facts if fact.get("cuda")), diagnosis.CUDA)
    version = next(iter(gpus.query("driver_version").values()), [""])[0]
    yield diagnosis.judge_driver(place, version, cuda)
    if place == LAB:
        yield _examine_toolkit()
    values = gpus.query("memory.total", "compute_cap")
    for gpu in granted:
        memory, capability = values.get(gpu.uuid, ("", ""))
        yield diagnosis.judge_gpu(place, gpu, memory, capability)


def _examine_toolkit() -> Finding:
    tools = ("nvidia-ctk", "nvidia-container-cli")
    tool = next(filter(shutil.which, tools), None)
    if not tool:
        text = f"neither {' nor '.join(tools)}"
        return Finding(LAB, "NVIDIA toolkit", Verdict.FAIL, text, docker_engine.INSTALL_TOOLKIT)
    version = re.search(r"\d+\.\d[\w.+-]*", answer(tool, "--version"))
    return diagnosis.judge_toolkit(version[0] if version else "")


@contextlib.contextmanager
def _container(
    client: Any, docker: Path, build: Path, granted: Sequence[Gpu], command: Sequence[str]
) -> Iterator[containers.Container]:
    """A command in a container like those of lessons, with all GPUs and an attempt in `build`."""
    user = containers.user_inside(as_root=containers.needs_root(client))
    options = containers.hardened_options(
        docker_engine.usable_memory(client),
        user=user,
        pids=containers.PIDS + containers.PIDS_PER_RANK * max(2, len(granted)),
        environment={**_visible(granted), "PYTHONPATH": COURSE},
        gpus=granted,
    )
    options["name"] = containers.unique_name("doctor")
    mounted = {**server_code(), PROBE[-1]: Path(__file__).with_name("probe.py")}
    require_readable(mounted.values(), user)
    options["mounts"] = [containers.mount(path, target) for target, path in mounted.items()]
    found = image.find(client, image.variants(bool(granted)), docker)
    with atomic.private_folder(build) as attempt:
        containers.change_owner(attempt, user)
        options["mounts"].append(containers.mount(attempt, ATTEMPT, writable=True))
        with contextlib.closing(containers.Container(found.id, command, options)) as container:
            yield container


def _ask_fork_server(server: Channel) -> str:
    """Return how runs would start kernels: `forked`, or `fresh: why`; empty if it fails."""
    for line in server.lines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return str(json.loads(line)["environment"]["kernel"])
    return ""


def read_facts(channel: Channel) -> list[Fact]:
    """Return what a probe prints, and a fault if it ends too early or never."""
    lines, facts = read_ahead(channel.lines()), list[Fact]()
    deadline = time.monotonic() + DEADLINE_S + GRACE_S
    with contextlib.suppress(queue.Empty):
        while line := lines.get(timeout=max(0, deadline - time.monotonic())):
            facts += _parse_fact(line)
    if facts and (facts[-1]["test"] == LAST or "fault" in facts[-1]):
        return facts
    after = facts[-1]["test"] if facts else "its start"
    fault = f"after {after} it {channel.ending()}; it may take {DEADLINE_S} s"
    return [*facts, {"test": "probe", "fault": fault}]


def _parse_fact(line: str) -> list[Fact]:
    """Return the fact of a line; none if something else, such as torch, has printed the line."""
    try:
        fact = json.loads(line)
    except ValueError:
        return []
    return [fact] if isinstance(fact, dict) and "test" in fact else []


def _visible(granted: Sequence[Gpu]) -> dict[str, str]:
    """Return the variables by which a run sees only its GPUs."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in granted)}
