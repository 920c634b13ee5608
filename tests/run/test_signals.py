"""`invoke run` beside other invocations, and after signals."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import GRADIENT, ORACLE, Write, eventually
from tests.run.conftest import command

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_publishes_nothing(
    course: Path, write: Write, number: signal.Signals
) -> None:
    """With exit status 1, one line, no handouts, and no incomplete attempt."""
    write("# %%\nopen('started', 'w').close()\nimport time; time.sleep(600)\n", header="")
    (course / "lessons/expected/01_small.py").unlink()
    process = subprocess.Popen(
        command(), cwd=course, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert eventually((course / "lessons/started").exists, 60)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.strip().splitlines()[-1] == "interrupted; nothing was published"
    assert not (course / "build/handouts").exists()


def test_two_invocations_in_one_checkout_take_turns(course: Path, write: Write) -> None:
    """The second says that it waits, and neither removes the attempts of the other."""
    write("# %%\nimport time; time.sleep(1)\n" + GRADIENT, expected=ORACLE)
    both = [
        subprocess.Popen(
            command("--fresh"),
            cwd=course,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("waiting until it ends" in output for output in outputs) == [False, True]


def test_a_run_under_nohup_outlives_its_terminal(course: Path, write: Write) -> None:
    """A SIGHUP that was ignored at the start stays ignored."""
    write("# %%\nimport time; time.sleep(1)\n" + GRADIENT, expected=ORACLE)
    process = subprocess.Popen(
        ["nohup", *command()], cwd=course, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert eventually(lambda: list((course / "build/runs").glob("*/*/.*")), 60)
    process.send_signal(signal.SIGHUP)
    assert process.wait(300) == 0
