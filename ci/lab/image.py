"""The lab's images: their names, what they are built from, and whether one is up to date."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.errors import MachineError, UsageError
from ci.lab import docker_engine

VARIANTS = ("cuda", "cpu")
BASE = "python:3.11-slim-bookworm"  # the Dockerfile's own default
OCI = "org.opencontainers.image"
BASE_NAME, BASE_DIGEST = f"{OCI}.base.name", "pytorch-course.base"  # labels
INPUTS = "pytorch-course.inputs"  # label: a digest of everything but the base
NAME = "pytorch-course"
KEPT = 3  # images of a variant: of the last changes, and of other checkouts


@dataclass(frozen=True)
class Base:
    """The image that the lab is built on.

    `digest` is of its layers, because the id of an image depends on the engine's image store.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class Image:
    """An image of the lab that the engine has."""

    name: str
    id: str
    variant: str

    def __str__(self) -> str:
        return f"{self.name} ({self.id[:19]})"


def tag(variant: str, folder: Path) -> str:
    """Return the name of the image of a variant that `folder` builds; other inputs give another.

    Raises MachineError if an input is missing.
    """
    return f"{NAME}:{variant}-{digest_inputs(variant, folder)[:12]}"


def built(client: Any, variant: str) -> list[Any]:
    """Return the images of a variant from any inputs, the newest first."""
    found = client.images.list(name=NAME)
    own = [each for each in found if any(f"{NAME}:{variant}-" in tag for tag in each.tags)]
    return sorted(own, key=lambda each: str(each.attrs.get("Created")), reverse=True)


def variants(with_gpus: bool) -> list[str]:
    """Return the variants that can run the lessons, the best one first."""
    return ["cuda"] if with_gpus else ["cpu", "cuda"]


def parse_variant(variant: str) -> str:
    """Return the value of `--variant`. Raises UsageError."""
    if variant not in VARIANTS:
        raise UsageError(f"--variant {variant}: expected {' or '.join(VARIANTS)}")
    return variant


def digest_inputs(variant: str, folder: Path) -> str:
    """Return a digest of the files in `folder` (docker/) that an image of a variant is built from.

    The lock among them has the packages' own digests. Raises MachineError if a file is missing.
    """
    digest = hashlib.sha256()
    for name in ("Dockerfile", ".dockerignore", "overrides.json", f"{variant}.txt"):
        part = folder / name
        if not part.is_file():
            raise MachineError(f"{part}: no such file, and the lab's image is built from it")
        digest.update(name.encode() + b"\0" + part.read_bytes() + b"\0")
    return digest.hexdigest()


def is_current(client: Any, variant: str, base: Base, folder: Path) -> bool:
    """Return whether the image of a variant is what `folder` would build on `base` now."""
    found = client.images.list(name=tag(variant, folder))
    bases = [(each.labels.get(BASE_NAME), each.labels.get(BASE_DIGEST)) for each in found]
    return (base.name, base.digest) in bases


def find(client: Any, variants: Sequence[str], folder: Path) -> Image:
    """Return the first image of `variants` that is built from what is in `folder` now.

    Raises MachineError with the command that builds one if there is none.
    """
    for variant in variants:
        name = tag(variant, folder)
        if found := client.images.list(name=name):
            return Image(name, found[0].id, variant)
    raise MachineError(
        f"no {variants[0]} image of {folder.name}/ as it is now: {remedy(client, variants[0])}"
    )


def remedy(client: Any, variant: str) -> str:
    """Return the command that builds the image of a variant, on the base of the last one."""
    bases = [each.labels.get(BASE_NAME) for each in built(client, variant)]
    on_base = f" --base-image {bases[0]}" if bases and bases[0] not in (None, BASE) else ""
    return f"invoke build-lab --variant {variant}{on_base}"


def find_base(client: Any, name: str, on_step: Callable[[str], None]) -> Base:
    """Return the base image `name`, which is pulled if the engine does not have it.

    `on_step` gets a line before a pull. Raises MachineError if there is no such image.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        found = client.images.get(name)
    except ImageNotFound:
        on_step(f"pulling {name}")
        try:
            found = client.images.pull(name)
        except DockerException as error:
            reason = " ".join(docker_engine.explanation(error).split())
            raise MachineError(
                f"no base image {name} here or in a registry: choose one with --base-image, or "
                f"make one with docker/make_base ({reason})"
            ) from None
    layers = docker_engine.field(found.attrs, "RootFS")["Layers"]
    return Base(name, hashlib.sha256(" ".join(layers).encode()).hexdigest())


def layers(client: Any, image: Image) -> list[str]:
    """Return a line for each layer of at least a megabyte, the largest first."""
    history = client.images.get(image.id).history()
    sizes = [(layer["Size"] / 1e6, " ".join(layer["CreatedBy"].split())) for layer in history]
    large = sorted((size, step) for size, step in sizes if size >= 1)
    return [f"{size:7.0f} MB  {step[:80]}" for size, step in reversed(large)]


def prune(client: Any, variant: str) -> None:
    """Remove all but the newest images of a variant, and those without a name, unless in use."""
    from docker.errors import APIError

    for old in built(client, variant)[KEPT:]:
        for name in old.tags:
            with contextlib.suppress(APIError):
                client.images.remove(name)
    client.images.prune(filters={"dangling": True, "label": INPUTS})
