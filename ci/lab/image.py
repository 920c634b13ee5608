"""The lab's images: their names, what they are built from, and whether one is up to date."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.errors import MachineError, UsageError, suggest
from ci.lab import docker_engine

VARIANTS = ("cuda", "cpu")
BASE = "python:3.11-slim-bookworm"  # the Dockerfile's own default
OCI = "org.opencontainers.image"
BASE_NAME, BASE_DIGEST = f"{OCI}.base.name", f"{OCI}.base.digest"  # labels
INPUTS = "pytorch-course.inputs"  # label: a digest of everything but the base


@dataclass(frozen=True)
class Base:
    """The image that the lab is built on. `digest` is its registry's, or its id without one."""

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


def tag(variant: str) -> str:
    """Return the name of the image of a variant."""
    return f"pytorch-course:{variant}"


def variants(with_gpus: bool) -> list[str]:
    """Return the variants that can run the lessons, the best one first."""
    return ["cuda"] if with_gpus else ["cpu", "cuda"]


def parse_variant(variant: str) -> str:
    """Return the value of `--variant`. Raises UsageError."""
    if variant not in VARIANTS:
        hint = suggest(variant, [*VARIANTS])
        raise UsageError(f"--variant {variant}: no such variant{hint}")
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


def stale_reason(labels: Mapping[str, str], variant: str, folder: Path) -> str:
    """Return why an image with these labels is out of date; empty if it is up to date."""
    if labels.get(INPUTS) != digest_inputs(variant, folder):
        return f"{folder.name}/ has changed since it was built"
    return ""


def is_current(client: Any, variant: str, base: Base, folder: Path) -> bool:
    """Return whether the image of a variant is what `folder` would build on `base` now."""
    found = client.images.list(name=tag(variant))
    if not found or stale_reason(found[0].labels, variant, folder):
        return False
    labels = found[0].labels
    return bool((labels.get(BASE_NAME), labels.get(BASE_DIGEST)) == (base.name, base.digest))


def find(client: Any, variants: Sequence[str], folder: Path) -> Image:
    """Return the first image of `variants` that is up to date with `folder`.

    Raises MachineError with the command that builds one if there is none.
    """
    faults = []
    for variant in variants:
        found = client.images.list(name=tag(variant))
        if not found:
            faults.append(f"no image {tag(variant)}")
        elif reason := stale_reason(found[0].labels, variant, folder):
            faults.append(f"the image {tag(variant)} is stale ({reason})")
        else:
            return Image(tag(variant), found[0].id, variant)
    raise MachineError(f"{faults[0]}: invoke build-lab --variant {variants[0]}")


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
    digests = [digest.partition("@")[2] for digest in found.attrs.get("RepoDigests") or []]
    return Base(name, min(digests, default=found.id))


def prune(client: Any) -> None:
    """Remove unused images without a name that builds have left."""
    client.images.prune(filters={"dangling": True, "label": INPUTS})
