"""Where Python looks for the modules that a lesson imports."""

import os
import sys
from pathlib import Path


def add_after_standard_library(folder: str) -> None:
    """Import from `folder` too, after the standard library and before installed packages.

    As in Jupyter, a module beside the lesson can then hide an installed package, but no module of
    the standard library. The position is found from the standard library, because the folder that
    `sysconfig` names for packages is not always on the path (user installs, Debian).
    """
    standard = str(Path(os.__file__).parent)
    ends = [
        position
        for position, entry in enumerate(sys.path, start=1)
        if entry == standard or Path(entry).name == "lib-dynload"
    ]
    sys.path.insert(max(ends, default=len(sys.path)), folder)
