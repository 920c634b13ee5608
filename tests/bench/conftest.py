"""What the tests of the benchmark share."""

from pathlib import Path

import pytest

from tests.bench import benchmark
from tests.conftest import ORACLE, Write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(write: Write, tmp_path: Path) -> Path:
    """A project with one small lesson."""
    benchmark.prepare([write(expected=ORACLE)], ROOT, tmp_path / "work")
    return tmp_path / "work"
