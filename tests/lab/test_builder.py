"""Which builder makes an image of the lab, and which images there are."""

from pathlib import Path

import pytest

from ci.errors import MachineError, UsageError
from ci.lab import builder, image


def test_an_unknown_variant_is_the_command_lines_fault() -> None:
    """The message lists both: the nearest word to `gpu` would be `cpu`."""
    with pytest.raises(UsageError, match="--variant gpu: expected cuda or cpu"):
        image.parse_variant("gpu")


CLIENT = """\
#!/bin/sh
case $1 in
  buildx) [ {buildx} = True ] && echo "github.com/docker/buildx 0.13.1" ;;
  --version) echo "Docker version {version}, build 1" ;;
esac
"""


@pytest.mark.parametrize(
    ("version", "buildx", "name"),
    [
        ("29.7.2", True, "buildx"),
        ("20.10.24+dfsg1", True, "buildx"),
        ("20.10.24+dfsg1", False, "BuildKit"),
        ("28.2.2", False, "the classic builder"),
        ("podman", False, "the classic builder"),
    ],
)
def test_the_best_builder_of_a_docker_command_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, buildx: bool, name: str
) -> None:
    """buildx if it is installed, BuildKit of an old client, or the classic builder."""
    (tmp_path / "docker").write_text(CLIENT.format(version=version, buildx=buildx))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    assert builder.find_builder().name == name
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    assert builder.find_builder().name == "the classic builder"


def test_without_a_docker_command_nothing_can_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK alone is not enough."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no `docker` command here.*: install Docker"):
        builder.find_builder()
