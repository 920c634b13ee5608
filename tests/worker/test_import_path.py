"""The position of a lesson's folder on the import path."""

import os
import sys
from pathlib import Path

import pytest

from ci.worker.import_path import add_after_standard_library

STANDARD = str(Path(os.__file__).parent)
COMPILED = f"{STANDARD}/lib-dynload"
ARCHIVE = "/usr/lib/python311.zip"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # a virtual environment, where sysconfig's purelib is on the path
        ([ARCHIVE, STANDARD, COMPILED, "/venv/lib/site-packages"], ["/venv/lib/site-packages"]),
        # Debian's Python with packages from apt alone, and packages that a user installed
        (
            [ARCHIVE, STANDARD, COMPILED, "/home/a/.local/site-packages", "/usr/dist-packages"],
            ["/home/a/.local/site-packages", "/usr/dist-packages"],
        ),
        # no package is installed
        ([ARCHIVE, STANDARD, COMPILED], []),
        # a cluster's module system sets PYTHONPATH
        (["/opt/x/site-packages", ARCHIVE, STANDARD, "/usr/dist-packages"], ["/usr/dist-packages"]),
        # the standard library is in the archive
        ([ARCHIVE], []),
    ],
)
def test_a_folder_comes_between_the_standard_library_and_packages(
    monkeypatch: pytest.MonkeyPatch, before: list[str], after: list[str]
) -> None:
    """On every kind of installation; most have no `purelib` on their path."""
    monkeypatch.setattr(sys, "path", list(before))
    add_after_standard_library("/lessons")
    assert sys.path == [*before[: len(before) - len(after)], "/lessons", *after]
