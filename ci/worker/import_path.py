"""Where Python looks for the modules that a lesson imports."""

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from ci.lesson.code import imported_modules


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


def missing_modules(sources: Iterable[str], folder: Path) -> list[str]:
    """The modules that cells import and that are neither installed nor in the lesson's folder."""
    names = dict.fromkeys(name for source in sources for name in imported_modules(source))
    path = [str(folder), *sys.path]
    known = {*sys.builtin_module_names, *sys.modules}
    return [name for name in names if name not in known and not PathFinder.find_spec(name, path)]
