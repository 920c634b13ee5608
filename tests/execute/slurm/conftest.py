"""Courses for a cluster."""

from pathlib import Path

import pytest

from tests.slurm.runs import SLEEP, write_course


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of two lessons with the project's tasks."""
    return write_course(tmp_path)


@pytest.fixture
def sleeping(tmp_path: Path) -> Path:
    """A course of two lessons that do not end."""
    return write_course(tmp_path, SLEEP.format(seconds=600))
