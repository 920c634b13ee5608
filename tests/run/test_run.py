"""The verdicts of `invoke run`, its exit statuses, and what it writes."""

import re
from pathlib import Path

import pytest

from tests.conftest import GRADIENT, HEADER, ORACLE, Invoke, Write, files, write_lesson

pytestmark = pytest.mark.kernel

WRONG = GRADIENT.replace("4.0", "6.0")


def test_a_verified_course_is_published(published: tuple[Path, int, str]) -> None:
    """With exit status 0, the table, and six handouts per lesson."""
    course, status, output = published
    assert (status, "Traceback" in output) == (0, False)
    assert re.search(r"01_small +cpu +1/1 .* verified", output)
    assert len(list((course / "build/handouts").glob("??/01_small.*"))) == 6


def test_a_mismatch_fails_the_build(verified: Path, run: Invoke) -> None:
    """With exit status 1; the published handouts stay unchanged."""
    before = files(verified / "build/handouts")
    write_lesson(verified, WRONG)
    status, output = run()
    assert status == 1
    assert "lessons/01_small.py:18: check 'gradient' largest difference 6" in output
    assert files(verified / "build/handouts") == before


def test_a_lesson_that_exits_fails_and_names_the_missing_checks(write: Write, run: Invoke) -> None:
    """Although `sys.exit(0)` ends a kernel without an error."""
    write("# %%\nimport sys; sys.exit(0)\n" + GRADIENT)
    status, output = run()
    assert status == 1
    assert "01_small: never reported: gradient" in output


def test_a_script_without_checks_is_unchecked(write: Write, run: Invoke) -> None:
    """An ordinary script runs, and is not green."""
    write("# %%\nprint(1)\n", header="", name="02_plain")
    status, output = run()
    assert status == 1
    assert "02_plain: unchecked (the lesson declares no check)" in output


def test_a_value_without_a_check_is_not_green(write: Write, run: Invoke) -> None:
    """The message has the line and the remedy."""
    write(GRADIENT + "# %%\n1 + 1\n")
    status, output = run()
    assert status == 1
    assert "01_small unchecked: lessons/01_small.py:20: a cell shows a value without" in output


def test_a_sweep_writes_a_summary(course: Path, run: Invoke) -> None:
    """Three values are three runs, and the course page is not written."""
    status, output = run("-p", "size=2,4,16")
    assert status == 0
    assert output.count(": verified") == 3
    assert (course / "build/sweep/index.html").exists()
    assert not (course / "build/handouts").exists()


def test_brackets_in_a_parameter_are_not_markup(write: Write, run: Invoke) -> None:
    """Rich would read [/x] as a closing tag."""
    write(header=HEADER.replace("size: int = 4", 's: str = "a"  # a text\nsize: int = 4'))
    status, output = run("-p", "s=[/x]")
    assert (status, "s=[/x]" in output) == (0, True)


def test_a_lesson_that_needs_a_gpu_is_skipped(verified: Path, run: Invoke) -> None:
    """The exit status is 0 with `none` and 3 with `all`; it is never verified."""
    write_lesson(
        verified, header=HEADER.replace("{min: 0, max: 1}", "{min: 64, max: 64}"), name="02_gpu"
    )
    (verified / "lessons/expected/02_gpu.py").write_text(ORACLE)
    for gpus, expected in (("none", 0), ("all", 3)):
        status, output = run("--gpus", gpus)
        assert status == expected
        assert re.search(r"02_gpu.* needs 64 GPUs", output)
    assert not (verified / "build/handouts/en/02_gpu.html").exists()
