"""Whether an image is up to date, by the recorded answers of both of Docker's image stores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.lab import image
from ci.lab.image import Base
from tests.conftest import DOCKER

# Of `docker image inspect`, shortened: a base that was made here. The older store gives it no
# digest of a registry; in the containerd store, the default of Docker 29, its id is one.
NAME, ID = "pytorch-course-base:bookworm", f"sha256:{'a' * 64}"
OVERLAY: dict[str, Any] = {"RepoDigests": []}
CONTAINERD: dict[str, Any] = {"RepoDigests": [f"pytorch-course-base@{ID}"]}
STORES = pytest.mark.parametrize("store", [OVERLAY, CONTAINERD], ids=["overlay2", "containerd"])


def client(store: dict[str, Any], base: Base) -> Any:
    """An engine with a base image, and the lab's image that was built on `base`."""
    labels = {image.BASE_NAME: base.name, image.BASE_DIGEST: base.digest}
    built = SimpleNamespace(labels=labels, id=f"sha256:{'b' * 64}")
    return SimpleNamespace(
        images=SimpleNamespace(
            get=lambda _: SimpleNamespace(attrs=store, id=ID), list=lambda name: [built]
        )
    )


@STORES
def test_an_image_stays_up_to_date(store: dict[str, Any]) -> None:
    """The base has the same identity each time that it is looked up."""
    base = image.find_base(client(store, Base("", "")), NAME, print)
    assert image.is_current(client(store, base), "cpu", base, DOCKER)


@STORES
@pytest.mark.parametrize("before", [Base(NAME, f"sha256:{'c' * 64}"), Base("python:3.11", ID)])
def test_an_image_on_another_base_is_not_up_to_date(store: dict[str, Any], before: Base) -> None:
    """By its name, or by its contents."""
    base = image.find_base(client(store, Base("", "")), NAME, print)
    assert not image.is_current(client(store, before), "cpu", base, DOCKER)


def test_checkouts_with_other_inputs_have_other_images(tmp_path: Path) -> None:
    """So that none is rebuilt or removed because of another."""
    for name in ("Dockerfile", ".dockerignore", "overrides.json", "cpu.txt"):
        (tmp_path / name).write_text(name)
    assert image.tag("cpu", tmp_path) != image.tag("cpu", DOCKER)
