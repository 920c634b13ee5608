"""What the course needs of a machine, looked at: the machine, the engine and its images, and, by
`ci.doctor.probe`, what a lesson would find in the lab or here.
"""

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from ci.doctor import diagnosis
from ci.doctor.diagnosis import ABSENT, FAIL, GIB, HERE, LAB, MACHINE, OK, WARN, Row
from ci.doctor.probe import DEADLINE_S, LAST, Fact
from ci.errors import MachineError
from ci.execute import executor
from ci.execute.executor import COURSE, PIDS_PER_RANK, Channel
from ci.execute.local import Here, Process
from ci.lab import containers, image
from ci.plan import gpus
from ci.plan.gpus import Gpu

MEMORY = 4 * GIB  # a lesson with a few ranks, each of which imports torch
PROBE = Path(__file__).with_name("probe.py")  # needs nothing else of the pipeline
RESULTS = GIB  # on disk: many runs of the course
IMAGES = 20 * GIB  # on disk: the cuda image is built with its packages twice, and their wheels


def examine(on: str, request: gpus.Request, docker: Path, build: Path) -> Iterator[Row]:
    """Look at the places that `--on auto | here | lab` means, with the GPUs of `--gpus`.

    `auto` looks at the lab, and here where the course can't run in it. `docker` and `build` are the
    folders of these names. Raises UsageError.
    """
    executor.parse(on)
    granted, rows = _granted(request)
    yield from _machine(build)
    yield from rows
    in_lab = list(_lab(docker, granted)) if on != "here" else []
    yield from in_lab
    if on == "here" or (on == "auto" and diagnosis.fails(in_lab)):
        yield from _here(granted)


def _granted(request: gpus.Request) -> tuple[tuple[Gpu, ...], list[Row]]:
    """The GPUs to look at, or a row that says why there are none."""
    try:
        granted = gpus.grant(request)
    except MachineError as error:
        return (), [Row(MACHINE, "GPUs", FAIL, str(error), "or --gpus none, for the CPU")]
    why = "--gpus none" if request.text == "none" else "no NVIDIA GPU"
    absent = Row(MACHINE, "GPUs", ABSENT, f"{why}: lessons run on the CPU")
    return granted, [] if granted else [absent]


def _machine(build: Path) -> Iterator[Row]:
    memory = psutil.virtual_memory()
    found = f"{diagnosis.gib(memory.available)} available of {diagnosis.gib(memory.total)}"
    remedy = "end other programs"
    yield diagnosis.amount(MACHINE, "memory", memory.available, MEMORY, found, remedy)
    there = next(path for path in (build, *build.parents) if path.exists())
    yield _disk(MACHINE, "disk for results", there, RESULTS, "invoke clean")


def _disk(where: str, what: str, path: Path, wanted: int, remedy: str) -> Row:
    free = shutil.disk_usage(path).free
    found = f"{diagnosis.gib(free)} free at {path}"
    return diagnosis.amount(where, what, free, wanted, found, remedy)


def _lab(docker: Path, granted: Sequence[Gpu]) -> Iterator[Row]:
    facts: list[Fact] = []
    try:
        with containers.connect() as client:
            rows = [_engine(client), _builder(), *_images(client, docker, granted)]
            yield from rows
            yield from _engine_disk(client)
            if not diagnosis.fails(rows):
                facts = _probe_lab(client, docker, granted)
    except MachineError as error:
        yield Row(LAB, "Docker", FAIL, str(error))
    yield from _nvidia(LAB, granted, facts)
    yield from diagnosis.inside(LAB, granted, facts)


def _engine(client: Any) -> Row:
    version, options = client.version(), client.info().get("SecurityOptions") or []
    rights = "its daemon is root, and so is who may use it"
    if any("rootless" in option for option in options):
        rights = "rootless"
    found = f"{version['Version']}, API {version['ApiVersion']}; {rights}"
    return Row(LAB, "Docker engine", OK, found)


def _builder() -> Row:
    try:
        return Row(LAB, "builder", OK, image.builder().name)
    except MachineError as error:
        return Row(LAB, "builder", WARN, str(error))


def _images(client: Any, docker: Path, granted: Sequence[Gpu]) -> list[Row]:
    """A row a variant; that of the one to build fails where none is there that a run would take."""
    wanted = executor.variants(granted)
    rows = {variant: _image(client, variant, docker) for variant in image.VARIANTS}
    if not any(rows[variant].verdict == OK for variant in wanted):
        remedy = f"invoke build-lab --variant {wanted[0]}"
        rows[wanted[0]] = dataclasses.replace(rows[wanted[0]], verdict=FAIL, remedy=remedy)
    return list(rows.values())


def _image(client: Any, variant: str, docker: Path) -> Row:
    what, name = f"{variant} image", image.name(variant)
    if not (found := client.images.list(name=name)):
        return Row(LAB, what, ABSENT, f"{name} is not built")
    labels = found[0].labels
    base = labels.get(f"{image.OCI}.base.name", "an unknown base")
    about = f"{found[0].attrs['Size'] / 1e9:.2f} GB, on {base}"
    if fault := image.stale(labels, variant, docker):
        remedy = f"invoke build-lab --variant {variant}"
        return Row(LAB, what, WARN, f"stale, {fault}; {about}", remedy)
    return Row(LAB, what, OK, f"up to date, {about}")


def _engine_disk(client: Any) -> Iterator[Row]:
    """The disk of the engine's images, where the engine is on this machine."""
    path = Path(client.info()["DockerRootDir"])
    if client.api.base_url.startswith("http+docker") and path.exists():
        yield _disk(LAB, "disk for images", path, IMAGES, "docker image prune")


def _here(granted: Sequence[Gpu]) -> Iterator[Row]:
    facts: list[Fact] = []
    try:
        Here()  # which says what is not installed
        facts = _probe_here(granted)
    except MachineError as error:
        yield Row(HERE, "packages", FAIL, str(error))
    yield from _nvidia(HERE, granted, facts)
    yield from diagnosis.inside(HERE, granted, facts)


def _nvidia(where: str, granted: Sequence[Gpu], facts: Iterable[Fact]) -> Iterator[Row]:
    """The driver against torch's CUDA, the toolkit, each GPU against the code that torch has."""
    if not granted:
        return
    torch = {key: value for fact in facts for key, value in fact.items()}
    version = next(iter(gpus.ask("driver_version").values()), [""])[0]
    yield diagnosis.driver(where, version, torch.get("cuda") or diagnosis.CUDA)
    if where == LAB:
        yield _toolkit()
    answers = gpus.ask("memory.total", "compute_cap")
    for gpu in granted:
        memory, capability = answers.get(gpu.uuid, ("", ""))
        yield diagnosis.gpu(where, gpu, memory, capability, torch.get("arches", ()))


def _toolkit() -> Row:
    tools = ("nvidia-ctk", "nvidia-container-cli")
    tool = next(filter(None, map(shutil.which, tools)), None)
    if not tool:
        remedy = "install the NVIDIA Container Toolkit and restart Docker, or say --gpus none"
        return Row(LAB, "NVIDIA toolkit", FAIL, f"neither {' nor '.join(tools)}", remedy)
    answer = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\d+\.\d[\w.+-]*", answer.stdout)
    return diagnosis.toolkit(version[0] if version else "")


def _probe_lab(client: Any, docker: Path, granted: Sequence[Gpu]) -> list[Fact]:
    """What a container of ours finds, made as those of lessons are, with all GPUs."""
    options = containers.hardened(
        containers.share(client),
        user=containers.user(as_root=False),
        pids=containers.PIDS + PIDS_PER_RANK * max(2, len(granted)),
        environment={**_visible(granted), "PYTHONPATH": COURSE},
        gpus=granted,
    )
    options["name"] = containers.container_name("doctor")
    options["mounts"] = [containers.mount(PROBE, f"{COURSE}/probe.py")]
    found = image.find(client, executor.variants(granted), docker)
    command = ["python", "-P", f"{COURSE}/probe.py"]
    with closing(containers.Container(found.id, command, options)) as container:
        return _heard(container)


def _probe_here(granted: Sequence[Gpu]) -> list[Fact]:
    """What a process of this interpreter finds."""
    with closing(Process("ci.doctor.probe", _visible(granted))) as process:
        return _heard(process)


def _heard(channel: Channel) -> list[Fact]:
    """What a probe says, and that it broke off where it does."""
    facts = [json.loads(line) for line in channel.lines() if line.startswith("{")]
    if facts and (facts[-1]["look"] == LAST or "fault" in facts[-1]):
        return facts
    after = facts[-1]["look"] if facts else "its start"
    fault = f"after {after} it {channel.ending()}; it may take {DEADLINE_S} s"
    return [*facts, {"look": "probe", "fault": fault}]


def _visible(granted: Sequence[Gpu]) -> dict[str, str]:
    """What a run's lease is in the environment."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in granted)}
