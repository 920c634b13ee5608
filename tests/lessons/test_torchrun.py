"""lessons/parallel/torchrun.py: torchrun from a notebook, with processes that succeed and fail."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from parallel.torchrun import torchrun

from tests.conftest import ROOT
from tests.lessons.rank_programs import ranks_left, wait_until

pytestmark = pytest.mark.kernel


def script(folder: Path, text: str) -> str:
    """The path of a script."""
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def test_each_process_runs_the_script_in_the_folder(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['RANK'], os.getcwd(), sys.argv[1:], __name__)"
    printed = torchrun(str(tmp_path), script(tmp_path, program), 2, "--steps", 3)
    assert sorted(printed.splitlines()) == [
        f"{rank} {tmp_path} ['--steps', '3'] __main__" for rank in range(2)
    ]


def test_each_process_has_one_thread(tmp_path: Path) -> None:
    program = "import torch; print(torch.get_num_threads())"
    assert torchrun(str(tmp_path), script(tmp_path, program), 2).split() == ["1", "1"]


def test_calls_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    """Each has a port of its own."""
    program = script(tmp_path, "import os, time; print(os.environ['MASTER_PORT']); time.sleep(1)")
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(torchrun, str(tmp_path), program, 2) for _ in range(2)]
    (first, same), (second, _) = (call.result().split() for call in calls)
    assert first == same != second


def test_the_error_of_a_process_is_shown(tmp_path: Path) -> None:
    """The other process, which would sleep for long, has ended."""
    program = (
        "import os, pathlib, time\n"
        "if os.environ['RANK'] == '1': raise ValueError('no such option')\n"
        "time.sleep(1000)\n"
    )
    with pytest.raises(RuntimeError, match=r"script\.py(.|\n)*ValueError: no such option"):
        torchrun(str(tmp_path), script(tmp_path, program), 2)


def test_a_killed_process_is_an_error(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match="SIGKILL"):
        torchrun(str(tmp_path), script(tmp_path, program), 2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_end_with_their_caller(tmp_path: Path, how: signal.Signals) -> None:
    """Even if the caller cannot end them."""
    pids = tmp_path / "pids"
    pids.mkdir()
    program = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pids)!r}, str(os.getpid())).touch()\n"
        "time.sleep(1000)\n"
    )
    called = "import sys; from parallel.torchrun import torchrun; torchrun(*sys.argv[1:], 2)"
    caller = subprocess.Popen(
        [sys.executable, "-c", called, str(tmp_path), script(tmp_path, program)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "lessons")},
    )
    assert wait_until(lambda: len(list(pids.iterdir())) == 2, 60)
    caller.send_signal(how)
    caller.wait()
    assert wait_until(lambda: not ranks_left(pids), 20)
