"""Building the lab's image, with the `docker` command, because the SDK cannot speak to BuildKit."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ci.errors import MachineError
from ci.lab import docker_engine, image
from ci.lab.image import BASE_DIGEST, BASE_NAME, INPUTS, OCI, Base
from ci.machine.program import answer

LOCK = "pytorch-course.lock"  # label: a digest of the lock
# The caller's variables that a build gets: where packages come from, and the proxy on the way.
PASSED_ON = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
# The lines of a build's log that show progress: its slow steps, and the slow parts of pip's.
STEP = re.compile(r"(Step \d+/\d+ :|\[.*?\d+/\d+\]) (FROM|RUN|COPY) ")
SLOW = re.compile(r"Downloading \S+ \(\d{3,}\.\d MB\)|Installing collected packages")
NUMBERED = re.compile(r"(#\d+ |)(?:\d+\.\d+ )?(.*)")  # BuildKit's lines: step number, seconds, text
COLOUR = re.compile(r"\x1b\[[\d;]*m")
WIDTH = 100
REMOVE_S = 600.0  # to remove gigabytes of old layers from a slow disk
LAST = 12  # lines of a failed step


@dataclass(frozen=True)
class Builder:
    """A way to build: the start of its command, and variables of its environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def build_lab(
    variant: str,
    base_image: str,
    folder: Path,
    *,
    no_cache: bool = False,
) -> None:
    """Build the image of `--variant` on `--base-image` from `folder` unless it is up to date.

    Prints the progress, the image, and the sizes of the layers of a new one. Raises UsageError, and
    MachineError with the last lines of a step that fails.
    """
    say = partial(print, flush=True)
    variant = image.parse_variant(variant)
    with docker_engine.connect(REMOVE_S) as client:
        base = image.find_base(client, base_image or image.BASE, say)
        is_new = no_cache or not image.is_current(client, variant, base, folder)
        if is_new:
            build(variant, base, folder, no_cache=no_cache, on_step=say)
            image.prune(client, variant)
        found = image.find(client, [variant], folder)
        say(str(found))
        for line in image.layers(client, found) if is_new else []:
            say(line)


def find_builder() -> Builder:
    """Return the best builder of this machine's `docker` command. MachineError without one.

    As for that command itself, DOCKER_BUILDKIT=0 selects the classic builder.
    """
    docker = shutil.which("docker")
    if not docker:
        raise MachineError("no `docker` command here, which builds the images: install Docker")
    if os.environ.get("DOCKER_BUILDKIT") != "0":
        if answer(docker, "buildx", "version"):
            return Builder("buildx", (docker, "buildx", "build", "--load", "--progress=plain"), {})
        version = answer(docker, "--version").removeprefix("Docker version ")
        major = version.partition(".")[0]
        if major.isdecimal() and int(major) < 23:  # these have BuildKit without the plugin buildx
            asks = {"DOCKER_BUILDKIT": "1"}
            return Builder("BuildKit", (docker, "build", "--progress=plain"), asks)
    # Without --force-rm, the container of a failed step would be left behind.
    return Builder("the classic builder", (docker, "build", "--force-rm"), {"DOCKER_BUILDKIT": "0"})


def make_labels(variant: str, base: Base, folder: Path) -> dict[str, str]:
    """Return an image's labels: the standard ones, and those by which `image` finds it."""
    describe = ("describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")
    revision = answer("git", "-C", str(folder), *describe)
    return {
        f"{OCI}.title": f"PyTorch course, lab ({variant})",
        f"{OCI}.licenses": "MIT",
        **({f"{OCI}.revision": revision} if revision else {}),
        BASE_NAME: base.name,
        BASE_DIGEST: base.digest,
        LOCK: hashlib.sha256((folder / f"{variant}.txt").read_bytes()).hexdigest(),
        INPUTS: image.digest_inputs(variant, folder),
    }


def build_command(
    builder: Builder, variant: str, base: Base, folder: Path, *, no_cache: bool = False
) -> list[str]:
    """Return the command that builds the image of a variant from `folder`."""
    arguments = [f"BASE_IMAGE={base.name}", f"REQUIREMENTS={variant}.txt"]
    arguments += [name for name in PASSED_ON if os.environ.get(name)]
    labels = [f"{key}={value}" for key, value in make_labels(variant, base, folder).items()]
    return [
        *builder.command,
        # The host's network: it has the proxy of this machine, and some engines have no other.
        *("--network", "host", "--target", "lab", "--tag", image.tag(variant, folder)),
        *(word for argument in arguments for word in ("--build-arg", argument)),
        *(word for label in labels for word in ("--label", label)),
        *(["--no-cache"] if no_cache else []),
        str(folder),
    ]


def build(
    variant: str,
    base: Base,
    folder: Path,
    *,
    no_cache: bool = False,
    on_step: Callable[[str], None],
) -> None:
    """Build the image of a variant from `folder`; `on_step` gets a line as each step begins.

    Raises MachineError with the step that failed and its last lines.
    """
    builder = find_builder()
    on_step(f"building {image.tag(variant, folder)} on {base.name} with {builder.name}")
    with subprocess.Popen(
        build_command(builder, variant, base, folder, no_cache=no_cache),
        env={**os.environ, **builder.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        try:
            step, *log = _follow(process.stdout, on_step)
        except BaseException:  # on Ctrl-C, the command must not go on building
            process.terminate()
            raise
    if process.returncode:
        raise MachineError("\n  ".join([f"{builder.name} failed at {step}", *log, *_hint(log)]))


def _hint(log: Iterable[str]) -> list[str]:
    """Return what to do about a build of torch that no index has."""
    if any("No matching distribution found for torch==" in line for line in log):
        return [
            "→ put torch's wheel into docker/wheels/, or set PIP_EXTRA_INDEX_URL to PyTorch's index"
        ]
    return []


def _follow(lines: Iterable[str], on_step: Callable[[str], None]) -> list[str]:
    """Report progress; return the step that failed, or else the last one, and its last lines."""
    logs = {"": ["its start"]}  # by step number, because BuildKit mixes the lines of its steps
    failed = ""
    for line in lines:
        number, text = NUMBERED.findall(COLOUR.sub("", line.rstrip()))[0]
        if number and text.startswith("ERROR: "):
            failed = number
        if text in logs.get(number, ()):  # BuildKit repeats a step's name when it resumes the step
            continue
        if STEP.match(text) or SLOW.search(text):
            on_step(text[:WIDTH])
        if STEP.match(text):
            logs[number] = []
        if text:
            logs.setdefault(number, []).append(text)
    step, *log = logs[failed]
    return [step, *log[-LAST:]]
