"""Commands whose failure nobody would notice: `os.system` returns it.

The cases are from this project's own reviews.
"""

import re

import pytest

from ci.errors import CourseError
from tests.conftest import Read

IGNORED = {
    'os.system("exit 3")\nx = 1': 0,
    'os.system("exit 3");': 0,
    'if True:\n    os.system("exit 3")': 1,
    'x = 1\nsubprocess.run(["false"])\nx': 1,
    'subprocess.call(["false"]), 1\nsubprocess.call(["false"])\nx': 1,
}


@pytest.mark.parametrize("source", IGNORED)
def test_an_ignored_status_is_a_fault(read: Read, source: str) -> None:
    """With the line of the call."""
    line = 18 + IGNORED[source]
    message = rf"^lessons/01_small\.py:{line}: [\w.]+\(…\) ignores a failure of its command: "
    with pytest.raises(CourseError, match=message):
        read(f"# %%\n{source}\n")


@pytest.mark.parametrize(
    "source",
    [
        'subprocess.run(["true"], check=True)\nx = 1',
        "subprocess.run(words, **options)\nx = 1",
        'status = os.system("exit 3")\nassert status == 0',
        'x = 1\nos.system("true")',
        '# os.system("exit 3")\nx = 1',
    ],
)
def test_a_status_that_is_read_is_none(read: Read, source: str) -> None:
    """A variable, an exception, or the value of the cell, which needs a check."""
    assert re.search("1|0", read(f"# %%\n{source}\n").notebook.cells[-1].source)
