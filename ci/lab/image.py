"""The lab's images: what they are made of, whether one is up to date, and building one.

Built by the `docker` command, since the SDK can't speak to BuildKit; by whichever builder it has.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.errors import MachineError, UsageError, nearest

VARIANTS = ("cuda", "cpu")
BASE = "python:3.11-slim-bookworm"  # the Dockerfile's own default
INPUTS = "pytorch-course.inputs"  # label: digest of all that an image is made of, but the base
LOCK = "pytorch-course.lock"  # label: digest of its lock
OCI = "org.opencontainers.image"
IDENTITY = (INPUTS, f"{OCI}.base.name", f"{OCI}.base.digest")  # labels: the same, the same image
# Of the caller's environment, for the build: where packages come from, and the way there.
PASSED_ON = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
# What a build says of how far it is: its steps that take time, and within pip's the longest ones.
STEP = re.compile(r"(Step \d+/\d+ :|\[.*?\d+/\d+\]) (FROM|RUN|COPY) ")
SLOW = re.compile(r"Downloading \S+ \(\d{3,}\.\d MB\)|Installing collected packages")
NUMBERED = re.compile(r"(#\d+ |)(?:\d+\.\d+ )?(.*)")  # BuildKit's: of which step, seconds
COLOUR = re.compile(r"\x1b\[[\d;]*m")
WIDTH = 100
LAST = 12  # lines


def name(variant: str) -> str:
    """What the image of a variant is called."""
    return f"pytorch-course:{variant}"


def parse(variant: str) -> str:
    """Read the value of `--variant`. Raises UsageError."""
    if variant not in VARIANTS:
        hint = nearest(variant, [*VARIANTS])
        raise UsageError(f"--variant {variant}: no such variant{hint}")
    return variant


def inputs(variant: str, folder: Path) -> str:
    """A digest of what `folder` (docker/) holds for a variant; the lock has the packages' own.

    Raises MachineError where a part is not there.
    """
    digest = hashlib.sha256()
    for name in ("Dockerfile", ".dockerignore", "overrides.json", f"{variant}.txt"):
        part = folder / name
        if not part.is_file():
            raise MachineError(f"{part}: no such file, and the lab's image is made of it")
        digest.update(name.encode() + b"\0" + part.read_bytes() + b"\0")
    return digest.hexdigest()


def stale(labels: Mapping[str, str], variant: str, folder: Path) -> str:
    """Why an image with these labels is not what `folder` would build today; empty if it is."""
    if labels.get(INPUTS) != inputs(variant, folder):
        return f"{folder.name}/ has changed since it was built"
    return ""


@dataclass(frozen=True)
class Base:
    """The image that ours is built on. `digest` is its registry's, or its id if it has none."""

    name: str
    digest: str


@dataclass(frozen=True)
class Image:
    """An image of the lab, as the engine knows it."""

    name: str
    id: str
    variant: str

    def __str__(self) -> str:
        return f"{self.name} ({self.id[:19]})"


@dataclass(frozen=True)
class Builder:
    """A way to build: the start of its command, and what it wants in the environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def builder() -> Builder:
    """The best builder of this machine's `docker` command. MachineError where there is none.

    As for that command itself, DOCKER_BUILDKIT=0 asks for the classic one.
    """
    docker = shutil.which("docker")
    if not docker:
        raise MachineError("no `docker` command here, which builds the images: install Docker")
    if os.environ.get("DOCKER_BUILDKIT") != "0":
        if _answer(docker, "buildx", "version"):
            return Builder("buildx", (docker, "buildx", "build", "--load", "--progress=plain"), {})
        version = _answer(docker, "--version").removeprefix("Docker version ")
        major = version.partition(".")[0]
        if major.isdecimal() and int(major) < 23:  # it speaks to BuildKit by itself
            asks = {"DOCKER_BUILDKIT": "1"}
            return Builder("BuildKit", (docker, "build", "--progress=plain"), asks)
    # Without --force-rm it would leave the container of a step that fails.
    return Builder("the classic builder", (docker, "build", "--force-rm"), {"DOCKER_BUILDKIT": "0"})


def _answer(*command: str) -> str:
    """What a command says; empty where it fails, or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def labels(variant: str, base: Base, folder: Path) -> dict[str, str]:
    """What an image says of itself: the standard labels, and what `stale` reads."""
    revision = _answer(
        *("git", "-C", str(folder), "describe"),
        *("--always", "--dirty", "--exclude=*", "--abbrev=40"),
    )
    return {
        f"{OCI}.title": f"PyTorch course, lab ({variant})",
        f"{OCI}.licenses": "MIT",
        f"{OCI}.base.name": base.name,
        f"{OCI}.base.digest": base.digest,
        **({f"{OCI}.revision": revision} if revision else {}),
        LOCK: hashlib.sha256((folder / f"{variant}.txt").read_bytes()).hexdigest(),
        INPUTS: inputs(variant, folder),
    }


def command(
    by: Builder, variant: str, base: Base, folder: Path, *, no_cache: bool = False
) -> list[str]:
    """The words of the command that builds the image of a variant from `folder`."""
    return [
        *by.command,
        # The host's network: a proxy of this machine is there, and an engine may have no other.
        *("--network", "host", "--target", "lab", "--tag", name(variant)),
        *("--build-arg", f"BASE_IMAGE={base.name}", "--build-arg", f"REQUIREMENTS={variant}.txt"),
        *_each("--build-arg", [word for word in PASSED_ON if os.environ.get(word)]),
        *_each("--label", [f"{k}={v}" for k, v in labels(variant, base, folder).items()]),
        *(["--no-cache"] if no_cache else []),
        str(folder),
    ]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


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
    by = builder()
    on_step(f"building {name(variant)} on {base.name} by {by.name}")
    with subprocess.Popen(
        command(by, variant, base, folder, no_cache=no_cache),
        env={**os.environ, **by.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        try:
            last = _follow(process.stdout, on_step)
        except BaseException:  # Ctrl-C: the command must not go on building
            process.terminate()
            raise
    if process.returncode:
        raise MachineError("\n  ".join([f"{by.name} failed at {last[0]}", *last[1:]]))


def _follow(lines: Iterable[str], on_step: Callable[[str], None]) -> list[str]:
    """Say how far it is; the step that failed, or else the last, and its last lines."""
    logs, failed = {"": ["its start"]}, ""  # of steps, by BuildKit's number, since it mixes them
    for line in lines:
        number, text = NUMBERED.findall(COLOUR.sub("", line.rstrip()))[0]
        if number and text.startswith("ERROR: "):
            failed = number
        if text in logs.get(number, ()):  # BuildKit names a step each time that it goes on with it
            continue
        if STEP.match(text) or SLOW.search(text):
            on_step(text[:WIDTH])
        if STEP.match(text):
            logs[number] = []
        if text:
            logs.setdefault(number, []).append(text)
    step, *log = logs[failed]
    return [step, *log[-LAST:]]


def is_current(client: Any, variant: str, base: Base, folder: Path) -> bool:
    """Whether the image of a variant is what would be built from `folder` on `base` now."""
    found = client.images.list(name=name(variant))
    wanted = labels(variant, base, folder)
    return bool(found) and all(found[0].labels.get(k) == wanted[k] for k in IDENTITY)


def prune(client: Any) -> None:
    """Remove what builds have left: images without a name, but for those that are in use."""
    client.images.prune(filters={"dangling": True, "label": INPUTS})


def find(client: Any, variants: Sequence[str], folder: Path) -> Image:
    """The image to use: the first of `variants` that is built from what is in `folder` now.

    Raises MachineError where none is, saying what to build.
    """
    faults = []
    for variant in variants:
        found = client.images.list(name=name(variant))
        if not found:
            faults.append(f"no image {name(variant)}")
        elif fault := stale(found[0].labels, variant, folder):
            faults.append(f"the image {name(variant)} is stale ({fault})")
        else:
            return Image(name(variant), found[0].id, variant)
    raise MachineError(f"{faults[0]}: invoke build-lab --variant {variants[0]}")
