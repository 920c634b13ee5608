"""Whether an image is up to date, by the recorded answers of both of Docker's image stores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ci.lab import image
from ci.lab.image import Base
from tests.conftest import DOCKER

# Of `docker image inspect`, shortened: a base that was made here. Its id is of its settings in the
# older store, and of its manifest in the containerd store, which is the default of Docker 29.
NAME, LAYER = "pytorch-course-base:bookworm", f"sha256:{'a' * 64}"
OVERLAY, CONTAINERD = f"sha256:{'b' * 64}", f"sha256:{'c' * 64}"


def client(base_id: str, layer: str = LAYER, base: Base | None = None) -> Any:
    """An engine with a base image, and the lab's image that was built on `base`."""
    labels = {image.BASE_NAME: base.name, image.BASE_DIGEST: base.digest} if base else {}
    built = SimpleNamespace(labels=labels, id=f"sha256:{'d' * 64}")
    found = SimpleNamespace(attrs={"RootFS": {"Layers": [layer]}}, id=base_id)
    return SimpleNamespace(
        images=SimpleNamespace(get=lambda _: found, list=lambda name: [built]),
    )


@pytest.mark.parametrize("store", [OVERLAY, CONTAINERD])
def test_an_image_stays_up_to_date(store: str) -> None:
    """Also if an engine with another image store loads it."""
    base = image.find_base(client(OVERLAY), NAME, print)
    engine = client(store, base=base)
    assert image.is_current(engine, "cpu", image.find_base(engine, NAME, print), DOCKER)


@pytest.mark.parametrize(("name", "layer"), [(NAME, f"sha256:{'e' * 64}"), ("python:3.11", LAYER)])
def test_an_image_on_another_base_is_not_up_to_date(name: str, layer: str) -> None:
    """By its name, or by its contents."""
    before = image.find_base(client(OVERLAY, layer), name, print)
    base = image.find_base(client(OVERLAY), NAME, print)
    assert not image.is_current(client(OVERLAY, base=before), "cpu", base, DOCKER)


def test_checkouts_with_other_inputs_have_other_images(tmp_path: Path) -> None:
    """So that none is rebuilt or removed because of another."""
    for name in ("Dockerfile", ".dockerignore", "overrides.json", "cpu.txt"):
        (tmp_path / name).write_text(name)
    assert image.tag("cpu", tmp_path) != image.tag("cpu", DOCKER)
