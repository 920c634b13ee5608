"""Checks on a GPU machine: `python -m tests.gpu.check FOLDER`, in the root of the project.

It runs the course's commands as a user would, on this machine's torch, and takes some minutes. It
leaves `gpu.json` and `gpu.txt` in FOLDER. Without a GPU it runs on the CPU and skips what a GPU
would show.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).parents[2]
PARTS = ("ci", "lessons", "docker", "tasks.py", "pyproject.toml")  # of a checkout
LIMIT_S = 300.0  # for one command
SOON_S = 20.0  # for a GPU to be free again


class NoGpuError(Exception):
    """A check that needs what this machine lacks."""


class Machine:
    """Runs the course in checkouts of its own; `gpus` are the UUIDs of the machine's GPUs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.gpus = _query("--query-gpu=uuid")
        self.one = "1" if self.gpus else "none"  # the value of --gpus for one GPU or the CPU

    def checkout(self, name: str = "course") -> Path:
        """A copy of the project with a build/ of its own."""
        copy = self._folder / name
        if not copy.exists():
            copy.mkdir()
            for part in PARTS:
                (copy / part).symlink_to(ROOT / part)
        return copy

    def start(self, *words: str, checkout: str = "course") -> "subprocess.Popen[str]":
        """Start a command of the course."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.checkout(checkout),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, status: int = 0) -> str:
        """The output of a command, which must end with this status."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == status, f"status {process.returncode}:\n{output}"
        return output

    def run_lessons(self, *words: str, status: int = 0) -> str:
        """The output of `invoke run` on one GPU, or on the CPU, without handouts."""
        place = ["--on", "here", "--handouts", "none"]
        return self.run("run", *place, "--gpus", self.one, *words, status=status)

    def report(self) -> list[dict[str, str]]:
        """The runs of the last report."""
        runs = json.loads((self.checkout() / "build/report.json").read_text())["runs"]
        return list(runs)

    def require_gpu(self) -> None:
        """Skip a check on a machine without a GPU."""
        if not self.gpus:
            raise NoGpuError("no GPU")


def _query(*words: str) -> list[str]:
    if not (tool := shutil.which("nvidia-smi")):
        return []
    answer = subprocess.run(
        [tool, *words, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False
    )
    return answer.stdout.split() if answer.returncode == 0 else []


def doctor(machine: Machine) -> str:
    """The doctor finds that the course can run."""
    return machine.run("doctor", "--on", "here", "--gpus", machine.one).splitlines()[-1]


def course(machine: Machine) -> str:
    """All lessons are verified, with one rank over NCCL on a GPU."""
    return machine.run_lessons("--fresh")


def kernels(machine: Machine) -> str:
    """They were forked."""
    found = {run["environment"]["kernel"] for run in machine.report()}
    assert found == {"forked"}, found
    return "forked"


def sweep(machine: Machine) -> str:
    """Eight runs of a lesson, in both precisions."""
    return machine.run_lessons("03", "-p", "size=2,3,5,8", "-p", "dtype=float32,float64")


def devices(machine: Machine) -> str:
    """The same values on the CPU and on the GPU."""
    machine.require_gpu()
    return machine.run_lessons("03", "-p", "device=cpu,cuda")


def too_many(machine: Machine) -> str:
    """A run that asks for more GPUs than there are ends with status 3."""
    return machine.run("run", "--on", "here", "--gpus", "64", status=3)


def turns(machine: Machine) -> str:
    """Of two invocations that want the same GPU, one waits; both are verified."""
    machine.require_gpu()
    words = ["run", "03", "--on", "here", "--gpus", f"device={machine.gpus[0]}", "--fresh"]
    names = ("first", "second")
    both = [machine.start(*words, "--handouts", "none", checkout=name) for name in names]
    outputs = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)
    assert any("waits for GPUs" in output for output in outputs), "\n".join(outputs)
    return "one waited"


def kill(machine: Machine) -> str:
    """After `kill -9` of a kernel its run fails, and nothing of it is left, on the GPU either."""
    words = ["run", "05", "--on", "here", "--gpus", machine.one, "--handouts", "none", "--fresh"]
    process = machine.start(*words, "-v")
    assert process.stdout
    next(line for line in process.stdout if ", cell 9/" in line)
    while machine.gpus and not _query("--query-compute-apps=pid"):
        time.sleep(0.2)
    kernel = _kernel(psutil.Process(process.pid))
    server = kernel.parents()[1]
    opened = [os.readlink(path) for path in Path(f"/proc/{server.pid}/fd").iterdir()]  # noqa: PTH115
    assert not [path for path in opened if path.startswith("/dev/nvidia")], opened
    kernel.kill()
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1 and "killed by SIGKILL" in output, output
    deadline = time.monotonic() + SOON_S
    while used := _query("--query-compute-apps=pid"):
        assert time.monotonic() < deadline, f"still on the GPU: {used}"
        time.sleep(0.5)
    return "its kernel was killed by SIGKILL"


def _kernel(invoke: psutil.Process) -> psutil.Process:
    """The kernel of the only run: below its run process, which is below the fork server."""
    found = [process for process in invoke.children(recursive=True) if len(process.parents()) > 2]
    return next(kernel for kernel in found if kernel.parents()[2] == invoke)


CHECKS: tuple[Callable[[Machine], str], ...] = (
    doctor,
    too_many,
    course,
    kernels,
    sweep,
    devices,
    turns,
    kill,
)


def check(machine: Machine, only: str = "") -> Iterator[dict[str, object]]:
    """The result of each check, or of those that are named."""
    for function in CHECKS:
        if only and function.__name__ not in only.split(","):
            continue
        start, status, text = time.monotonic(), "ok", ""
        try:
            text = function(machine)
        except NoGpuError as reason:
            status, text = "skipped", str(reason)
        except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
            status, text = "failed", f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - start, 1)
        yield {"check": function.__name__, "status": status, "seconds": seconds, "text": text}


def main(folder: str, only: str = "") -> int:
    """Run the checks; the exit status is 1 if one fails."""
    results = []
    with TemporaryDirectory(prefix="gpu-") as copies:
        machine = Machine(Path(copies))
        for result in check(machine, only):
            results.append(result)
            print(f"{result['check']}: {result['status']}, {result['seconds']} s", flush=True)
            _write(Path(folder), machine.gpus, results)
    return int(any(result["status"] == "failed" for result in results))


def _write(folder: Path, gpus: list[str], results: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"gpus": gpus, "cores": os.cpu_count(), "checks": results}
    (folder / "gpu.json").write_text(json.dumps(facts, indent=1))
    parts = [f"== {r['check']}: {r['status']}, {r['seconds']} s\n{r['text']}" for r in results]
    (folder / "gpu.txt").write_text("\n".join([f"GPUs: {len(gpus)}", *parts]) + "\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
