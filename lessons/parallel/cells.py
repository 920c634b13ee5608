"""Run a function that a notebook cell defines on several ranks."""

import importlib
import inspect
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from parallel.launch import launch

IMPORTS = "import torch\nimport torch.distributed as dist\nfrom torch import nn\n"
IMPORTS += "from torch.nn.parallel import DistributedDataParallel\n\n\n"
_numbers = count()


def launch_cell(
    function: Callable[..., Any], world_size: int, *arguments: Any, **options: Any
) -> Any:
    """Run a function of a cell with `launch`: its source goes to a file, which ranks can import.

    The function may use its arguments, `torch`, `dist`, `nn` and `DistributedDataParallel`.
    """
    name = f"cell_{next(_numbers)}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{name}.py").write_text(IMPORTS + inspect.getsource(function), "utf-8")
        sys.path.insert(0, folder)
        try:
            program = getattr(importlib.import_module(name), function.__name__)
            return launch(program, world_size, *arguments, **options)
        finally:
            sys.path.remove(folder)
            sys.modules.pop(name, None)
