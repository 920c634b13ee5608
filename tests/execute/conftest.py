"""Runs in the lab and what they printed."""

from pathlib import Path

import nbformat
import pytest

from ci.execute.container import ContainerExecutor
from ci.execute.events import Event, Execution
from ci.lab.containers import GIB
from ci.lab.image import Image
from ci.lesson.lesson import Lesson
from ci.plan import planner
from tests.conftest import executions


def execute(
    lesson: Lesson, folder: Path, where: ContainerExecutor, *settings: str
) -> list[Execution]:
    """The executions of the runs of `lesson` in the lab."""
    runs = planner.runs([lesson], settings, [], timeout_s=90)
    return executions(runs, folder, where)


@pytest.fixture(scope="module")
def the_lab(lab_image: Image) -> ContainerExecutor:
    """The lab of this project, with 2 GiB of memory per container."""
    return ContainerExecutor(lab_image, memory=2 * GIB)


def printed(end: Event) -> list[str]:
    """The lines that a lesson printed."""
    assert end.notebook
    cells = nbformat.read(end.notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if "text" in output).splitlines()
