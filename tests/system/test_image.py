"""The inputs of the lab's images, and real builds."""

import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ci.errors import MachineError
from ci.lab import builder, image
from ci.lab.docker_engine import connect
from ci.lab.image import Image
from tests.conftest import DOCKER
from tests.machine_parts import missing

BASE = image.Base("base:1", "sha256:1")
SMALL = "small-test"  # a variant for tests, so that no image of the lab loses its name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of docker/ to change, with a lock of one package and its wheel."""
    made = tmp_path / "docker"
    (made / "wheels").mkdir(parents=True)
    for name in ("Dockerfile", ".dockerignore", "overrides.json"):
        shutil.copy(DOCKER / name, made)
    wheel = made / "wheels/small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as parts:
        parts.writestr("small/__init__.py", "")
        parts.writestr("small/tests/__init__.py", "")
        parts.writestr("small-1.0.dist-info/METADATA", "Name: small\nVersion: 1.0\n")
        parts.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        parts.writestr("small-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (made / f"{SMALL}.txt").write_text(f"small==1.0 --hash=sha256:{digest}\n")
    return made


@pytest.mark.parametrize("part", ["Dockerfile", ".dockerignore", "overrides.json", f"{SMALL}.txt"])
def test_other_inputs_give_an_image_another_name(folder: Path, part: str) -> None:
    """The Dockerfile, the list of ignored files, the settings and the lock."""
    before = image.tag(SMALL, folder)
    with (folder / part).open("a") as file:
        file.write("\n")
    assert image.tag(SMALL, folder) != before


def test_another_lock_or_a_wheel_is_no_input(folder: Path) -> None:
    """The lock's hashes decide which wheels are installed."""
    before = image.tag(SMALL, folder)
    (folder / "cuda.txt").write_text("")
    (folder / "wheels/other-1.0-py3-none-any.whl").write_text("")
    assert image.tag(SMALL, folder) == before


def test_a_missing_input_is_named(folder: Path) -> None:
    """One line with its path."""
    (folder / "overrides.json").unlink()
    with pytest.raises(MachineError, match="docker/overrides.json: no such file"):
        image.digest_inputs(SMALL, folder)


def test_the_labels_name_an_images_inputs() -> None:
    """The commit and the base under their standard names, and the lock's digest."""
    labels = builder.make_labels("cpu", BASE, DOCKER)
    assert labels["org.opencontainers.image.base.name"] == "base:1"
    assert labels[image.BASE_DIGEST] == "sha256:1"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert labels[builder.LOCK] == hashlib.sha256((DOCKER / "cpu.txt").read_bytes()).hexdigest()


def test_outside_a_repository_no_commit_is_named(folder: Path) -> None:
    """The label is left out."""
    assert "org.opencontainers.image.revision" not in builder.make_labels(SMALL, BASE, folder)


def test_a_build_gets_the_callers_package_index_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address may contain a password, which must not appear in the command."""
    monkeypatch.setenv("PIP_INDEX_URL", "secret")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    by = builder.Builder("any", ("docker", "build"), {})
    words = builder.build_command(by, SMALL, BASE, folder)
    assert words[words.index("PIP_INDEX_URL") - 1] == "--build-arg"
    assert "PIP_NO_INDEX" not in words
    assert "secret" not in "".join(words)
    without_cache = builder.build_command(by, SMALL, BASE, folder, no_cache=True)
    assert set(without_cache) - set(words) == {"--no-cache"}


@pytest.fixture(params=["the classic builder", "BuildKit"])
def base(
    request: pytest.FixtureRequest,
    base_image: str,
    lab_image: Image,  # is there, so that no other process builds it while leftovers are removed
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[image.Base]:
    """The base image, with one builder available and no package index; leftovers are removed."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    if request.param == "BuildKit":
        monkeypatch.delenv("DOCKER_BUILDKIT")
        path = os.environ["PATH"]
        for place in path.split(":"):
            monkeypatch.setenv("PATH", f"{place}:{path}")
            if builder.find_builder().name != "the classic builder":
                break
        else:
            missing("buildx, or a docker command older than 23")
    with connect() as client:
        yield image.find_base(client, base_image, pytest.fail)
        for left in image.built(client, SMALL):
            client.images.remove(left.id, force=True)
        image.prune(client, SMALL)


def test_each_builder_builds_the_same(base: image.Base, folder: Path) -> None:
    """From wheels alone: packages without their tests, no wheels, and the labels."""
    steps: list[str] = []
    builder.build(SMALL, base, folder, on_step=steps.append)
    assert [step for step in steps if "pip install" in step]
    with connect() as client:
        assert image.is_current(client, SMALL, base, folder)
        assert not image.is_current(client, SMALL, image.Base(base.name, "sha256:2"), folder)
        name, packages = image.tag(SMALL, folder), "/opt/venv/lib/python3.11/site-packages"
        listed = client.containers.run(
            name,
            ["ls", "/", "/opt/venv/bin", f"{packages}/small"],
            network_mode="none",
            remove=True,
        )
        assert "__init__.py" in listed.decode()
        assert not {"wheels", "requirements.txt", "pip", "tests"} & set(listed.decode().split())
        assert client.images.get(name).attrs["Config"]["User"] == "1000:1000"


def build(base: image.Base, folder: Path, settings: str) -> str:
    """The id of the image after a change of `folder`."""
    (folder / "overrides.json").write_text(settings)
    builder.build(SMALL, base, folder, on_step=lambda step: None)
    with connect() as client:
        return image.find(client, [SMALL], folder).id


def test_the_image_of_other_inputs_is_kept(base: image.Base, folder: Path) -> None:
    """It may be that of another checkout; the stage of the packages is not kept."""
    first = build(base, folder, "{}")
    second = build(base, folder, "{ }")
    with connect() as client:
        image.prune(client, SMALL)
        assert [found.id for found in image.built(client, SMALL)] == [second, first]
        assert client.images.list(filters={"label": f"{image.INPUTS}=packages"}) == []


def test_the_layers_of_an_image_are_listed_by_size(base_image: str, lab_image: Image) -> None:
    """The packages are the largest."""
    with connect() as client:
        lines = image.layers(client, lab_image)
    sizes = [int(line.split()[0]) for line in lines]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 500


def test_old_images_are_removed(
    base: image.Base, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes gigabytes."""
    build(base, folder, "{}")
    second = build(base, folder, "{ }")
    monkeypatch.setattr(image, "KEPT", 1)
    with connect() as client:
        image.prune(client, SMALL)
        assert [found.id for found in image.built(client, SMALL)] == [second]


def test_a_remedy_repeats_the_base_of_the_last_image(base: image.Base, folder: Path) -> None:
    """Or the next image would be built on another one."""
    build(base, folder, "{}")
    (folder / "overrides.json").write_text("{ }")
    with connect() as client, pytest.raises(MachineError, match=f"--base-image {base.name}$"):
        image.find(client, [SMALL], folder)


def test_a_step_that_fails_is_shown_with_its_last_lines(base: image.Base, folder: Path) -> None:
    """pip refuses a wheel whose hash is not in the lock; no image or container is left."""
    (folder / f"{SMALL}.txt").write_text(f"small==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(MachineError, match="failed at .*pip install") as error:
        builder.build(SMALL, base, folder, on_step=lambda step: None)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value).splitlines()) <= builder.LAST + 1
    with connect() as client:
        assert image.built(client, SMALL) == []
        left = [found.attrs["Config"]["Cmd"] for found in client.containers.list(all=True)]
    assert "--require-hashes" not in str(left)


def asleep(seconds: str) -> bool:
    """Whether a build's `sleep` still runs, as a process of this machine."""
    return any(["sleep", seconds] == p.info["cmdline"] for p in psutil.process_iter(["cmdline"]))


def wait_until(happens: Callable[[], bool]) -> None:
    """Wait for at most half a minute."""
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_torch_that_no_index_has_gets_its_remedy(
    base: image.Base, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyPI does not have the build for the CPU."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = folder / f"{SMALL}.txt"
    lock.write_text(lock.read_text().replace("small==1.0", "torch==0.0.1+cpu"))
    with pytest.raises(MachineError, match="put torch's wheel into docker/wheels/, or set PIP_EX"):
        builder.build(SMALL, base, folder, on_step=lambda _: None)


def test_an_interrupted_build_stops(base: image.Base, folder: Path) -> None:
    """The step's processes end, and no image is left."""
    seconds = f"600.{os.getpid()}"
    with (folder / "Dockerfile").open("a") as file:
        file.write(f"RUN sleep {seconds}\n")

    def interrupt(step: str) -> None:
        if "RUN sleep" in step:
            wait_until(lambda: asleep(seconds))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builder.build(SMALL, base, folder, on_step=interrupt)
    wait_until(lambda: not asleep(seconds))
    with connect() as client:
        assert image.built(client, SMALL) == []
