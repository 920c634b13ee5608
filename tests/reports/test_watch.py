"""`invoke run --watch`: a saved lesson is run again, in one process that goes on until Ctrl-C.

The cases are from this project's own reviews.
"""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.run.watch import WATCHING
from tests.conftest import GRADIENT, ORACLE, Invoke, Write, eventually

TIMEOUT_S = 120
PROSE = '# %% [markdown] lang="en"\n# Words.\n# %% [markdown] lang="zh"\n# 文字。\n'


class Watch:
    """`invoke run --watch` in the folder `course`, with the lines that it has printed."""

    def __init__(self, course: Path) -> None:
        self._course, self.lines = course, list[str]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "invoke", "run", "--on", "here", "--watch"],
            cwd=course,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            self.lines.extend(line.rstrip() for line in lines)

    def shows(self, expected: str, *, save: str = "") -> bool:
        """Whether it prints `expected` and watches again, after `save` became the lesson."""
        start = len(self.lines)
        if save:
            (self._course / "lessons/01_small.py").write_text(save, "utf-8")

        def is_shown() -> bool:
            lines = iter(self.lines[start:])
            return any(expected in line for line in lines) and any(
                WATCHING in line for line in lines
            )

        return eventually(is_shown, TIMEOUT_S)

    def interrupt(self) -> tuple[int, str]:
        """The exit status after Ctrl-C, and the last line."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(TIMEOUT_S)
        self._reader.join()
        return status, self.lines[-1]


@pytest.fixture
def watch(course: Path) -> Iterator[Watch]:
    """The command, which has not run anything yet."""
    started = Watch(course)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.kernel
def test_a_saved_lesson_has_a_new_page(course: Path, watch: Watch) -> None:
    """A change of prose executes nothing; after a typing error the next save counts."""
    script = (course / "lessons/01_small.py").read_text("utf-8")
    page, attempts = course / "build/handouts/en/01_small.html", course / "build/runs"

    def executions() -> int:
        return len(list(attempts.glob("*/*/*")))

    assert watch.shows("01_small: verified"), watch.lines
    assert watch.shows("judged again", save=script + PROSE), watch.lines
    assert "Words." in page.read_text("utf-8")
    assert executions() == 1

    assert watch.shows("lessons/01_small.py:", save=script + "# %% check=1\n1\n"), watch.lines
    assert watch.shows("01_small: differs", save=script.replace("4.0", "6.0")), watch.lines
    assert "Words." in page.read_text("utf-8")

    code = script + "# %%\nmarked = 4711\n"
    assert watch.shows("build/handouts/: the HTML is new", save=code), watch.lines
    assert all("4711" in page.with_suffix(kind).read_text("utf-8") for kind in (".html", ".ipynb"))
    assert executions() == 3
    assert watch.interrupt() == (0, "no longer watching; the last run ended with status 0")
    assert not any("KeyboardInterrupt" in line for line in watch.lines)


@pytest.mark.kernel
def test_a_course_with_a_fault_is_watched_too(course: Path, write: Write) -> None:
    """The first save may mend it; the last status is that of the last run."""
    write("# %% check=1\n1\n")
    watch = Watch(course)
    try:
        assert watch.shows("lessons/01_small.py:"), watch.lines
        assert watch.interrupt() == (1, "no longer watching; the last run ended with status 1")
    finally:
        watch.process.kill()


def test_without_a_folder_there_is_nothing_to_watch(course: Path, invoke: Invoke) -> None:
    """One line says how to begin."""
    shutil.rmtree(course / "lessons")
    status, output = invoke("run", "--watch")
    assert (status, "invoke new" in output, len(output.splitlines())) == (1, True, 1)


def test_a_wrong_option_ends_the_watch(course: Path, invoke: Invoke, write: Write) -> None:
    """No save can mend it."""
    write(GRADIENT, expected=ORACLE)
    status, output = invoke("run", "--watch", "--jobs", "0")
    assert (status, len(output.strip().splitlines())) == (2, 1)
