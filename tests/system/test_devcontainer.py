"""The development container: it installs what the README installs."""

import json
import re
import tomllib

from tests.conftest import ROOT

CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())


def test_it_installs_the_packages_of_the_tests() -> None:
    """By the extra's name in pyproject.toml; the README has the same command."""
    command = CONTAINER["postCreateCommand"]
    [extra] = re.findall(r"-e '\.\[(\w+)\]'", command)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert f".venv/bin/pip install -q -e '.[{extra}]'" in command
    assert f".venv/bin/pip install -q -e '.[{extra}]'" in (ROOT / "README.md").read_text()


def test_it_has_the_python_of_the_lab() -> None:
    """Another Python could show other values."""
    lab = re.findall(
        r"(?m)^ARG BASE_IMAGE=(python:[\d.]+)", (ROOT / "docker/Dockerfile").read_text()
    )
    assert lab == [CONTAINER["image"].partition("-")[0]]


def test_the_editor_uses_what_was_installed() -> None:
    """The interpreter is the one of the environment that the command makes."""
    settings = CONTAINER["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")
    assert CONTAINER["postCreateCommand"].startswith("python3 -m venv .venv ")
