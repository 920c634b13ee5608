"""`invoke new 09_mean`: a lesson with its oracle, which verify at once."""

import keyword
import re
from pathlib import Path

from ci.errors import UsageError
from ci.machine import atomic

LESSON = """\
# %% [markdown] lang="en"
# # {title}
#
# Say what the student learns here.
# %% [markdown] lang="zh"
# # {title}
#
# 说明学生在这里学到什么。
# %% tags=["parameters"]
size: int = 5  # number of elements
# %%
import torch

x = torch.arange(float(size))
# %% check="{check}"
x.mean()
"""
ORACLE = '''\
import numpy as np


def {check}(size):
    """The mean of 0 ... n - 1 is (n - 1) / 2."""
    return np.float64((size - 1) / 2)
'''


def write(name: str, lessons: Path) -> list[Path]:
    """Write the lesson `name` and its oracle into the folder `lessons`; their paths.

    Raises UsageError for a name that is not `NN_name`, or a number that a lesson has.
    """
    match = re.fullmatch(r"([0-9]{2})_([a-z][a-z0-9_]{,59})", name.removesuffix(".py"))
    if not match:
        example = f"{_next_number(lessons):02}_mean"
        raise UsageError(f"invoke new {name}: must be a number and a word, such as {example}")
    number, word = match.groups()
    for path in lessons.glob("*.py"):
        if path.stem.partition("_")[0] == number:
            free = f"{_next_number(lessons):02}_{word}"
            raise UsageError(f"{path.name} has this number: invoke new {free}")
    is_taken = keyword.iskeyword(word) or word in ("size", "x", "torch", "np")
    check = f"{word}_value" if is_taken else word
    title = word.replace("_", " ").capitalize()
    paths = [lessons / f"{match[0]}.py", lessons / "expected" / f"{match[0]}.py"]
    for path, text in zip(paths, (LESSON, ORACLE), strict=True):
        if path.exists():
            raise UsageError(f"{path} exists: remove it, or choose another name")
        atomic.write(path, text.format(title=title, check=check))
    return paths


def _next_number(lessons: Path) -> int:
    numbers = [path.stem.partition("_")[0] for path in lessons.glob("*.py")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
