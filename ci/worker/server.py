"""The fork server: `python -P -m ci.worker.server`. One serves all runs of a place.

It has imported what lessons import, and forks a run process for each request. Requests are JSON
lines on standard input, events are JSON lines on standard output; several runs may be in progress.
Where forks could differ from fresh processes, it starts fresh run processes, and says why.

It has one thread and never touches CUDA: after its imports it only forks, and forwards the events
of its run processes. When its standard input ends, its parent is gone, and it ends with everything
that its runs have started.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import runpy
import select
import signal
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.worker import preload, processes

# Of each kernel, and already set when the server imports:
VARIABLES = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # or figures vanish
    # `!python` is the kernel's interpreter:
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
}
PRELOAD_S = 60  # for the imports of the server; fresh processes take seconds each
CHUNK = 65536
MOST_DESCRIPTORS = 253  # that Linux sends with one message


def main(fresh: str = "") -> None:
    """Import, then serve. `fresh` is the reason why run processes must not be forks."""
    if os.getpid() != 1:  # the first process of a container, which lessons can reach, ignores it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.update(VARIABLES)
    environment = None if fresh else _preload()
    requests, events = os.dup(0), os.dup(1)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a lesson inherits these streams
        os.dup2(nothing.fileno(), 0), os.dup2(2, 1)
    processes.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    server = Server(requests, events, environment)
    try:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone
            server.send(event="ready", environment={**describe(), "kernel": fresh or "forked"})
            server.serve()
    finally:
        processes.kill_descendants(spare=server.stuck)


def describe() -> dict[str, str]:
    """The versions, build and processor that execute the lessons. Does not import torch."""
    facts = {"Python": platform.python_version(), "machine": _processor()}
    spec = importlib.util.find_spec("torch")
    with contextlib.suppress(OSError):  # a lesson will say what is wrong with torch
        if spec and spec.origin:
            build = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
            facts["torch"] = str(build["__version__"])
            facts["cuda"] = str(build.get("cuda") or "")
    facts["NumPy"] = importlib.metadata.version("numpy")
    if job := os.environ.get("SLURM_JOB_ID"):
        facts["Slurm job"] = f"{job} ({os.environ.get('SLURMD_NODENAME', 'node unknown')})"
    return facts


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _preload() -> dict[str, str]:
    """Import; where forks could differ, begin again as a server that does not fork."""

    def too_late(*_: object) -> None:
        raise TimeoutError(f"the imports take more than {PRELOAD_S} s")

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(PRELOAD_S)
    errors = os.dup(2)
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - for what imports print
        os.dup2(nothing.fileno(), 2)
    try:
        environment = preload.preload()
    except Exception as error:
        reason = f"fresh: {str(error) or type(error).__name__}".splitlines()[0]
    else:
        reason = ""
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.dup2(errors, 2)
    os.close(errors)
    if reason:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "ci.worker.server", reason])
    return environment


@dataclass
class RunProcess:
    """A run in progress: its key, its process, and a part of a line that it has sent."""

    key: str
    pid: int
    rest: bytes = b""
    has_ended: bool = False


class Server:
    """Forks run processes and forwards what they tell; they are in `runs`, by their pipes."""

    def __init__(self, requests: int, events: int, environment: Mapping[str, str] | None) -> None:
        """Forks get `environment`; without one, run processes are fresh."""
        self._requests, self._events, self._environment = requests, events, environment
        self._is_socket = stat.S_ISSOCK(os.fstat(requests).st_mode)
        self._rest, self._descriptors = b"", list[int]()
        self._runs: dict[int, RunProcess] = {}

    @property
    def stuck(self) -> set[int]:
        """Run processes that have ended their runs and wait for what cannot be killed."""
        return {run.pid for run in self._runs.values() if run.has_ended}

    def serve(self) -> None:
        """Serve until the requests end."""
        while True:
            for ready in select.select([self._requests, *self._runs], [], [])[0]:
                if ready in self._runs:
                    self._forward(ready)
                elif not self._receive():
                    return

    def send(self, **event: Any) -> None:
        """Send an event."""
        self._write(json.dumps(event).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._events, line) :]

    def _receive(self) -> bool:
        """Read and serve requests; False if there will be no more."""
        chunk, descriptors = self._read()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._descriptors += descriptors
        for line in lines:
            request = json.loads(line)
            if "end" in request:
                self._end(request["end"])
            else:
                number = request["leases"]
                leases, self._descriptors = self._descriptors[:number], self._descriptors[number:]
                self._start(request, leases)
        return bool(chunk)

    def _read(self) -> tuple[bytes, list[int]]:
        if not self._is_socket:  # a container's
            return os.read(self._requests, CHUNK), []
        with socket.socket(fileno=os.dup(self._requests)) as requests:
            chunk, descriptors, _, _ = socket.recv_fds(requests, CHUNK, MOST_DESCRIPTORS)
        return chunk, descriptors

    def _start(self, request: Mapping[str, Any], leases: Sequence[int]) -> None:
        """Start a run process, which alone holds the leases."""
        reader, report = os.pipe()
        if self._environment is None:
            pid = _start_fresh(request, [report, *leases])
        elif not (pid := os.fork()):
            os.close(reader)
            self._become_run_process(request, [report, *leases], self._environment)
        self._runs[reader] = RunProcess(request["run"], pid)
        for descriptor in (report, *leases):
            os.close(descriptor)

    def _become_run_process(
        self, request: Mapping[str, Any], inherited: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        try:
            from ci.worker import run_process

            for descriptor in (self._requests, self._events, *self._runs, *self._descriptors):
                os.close(descriptor)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(environment)
            run_process.main(request, inherited, forked=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _forward(self, pipe: int) -> None:
        """Forward what a run process has sent, or say that it is lost."""
        run = self._runs[pipe]
        chunk = os.read(pipe, CHUNK)
        *lines, run.rest = (run.rest + chunk).split(b"\n")
        for line in lines:
            self._write(line + b"\n")
            run.has_ended |= json.loads(line)["event"] == "ended"
        if not chunk:
            os.close(pipe)
            del self._runs[pipe]
            self._reap(run)

    def _reap(self, run: RunProcess) -> None:
        """Kill what a run process has left, if it was lost."""
        code = os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
        if not run.has_ended:
            others = {other.pid for other in self._runs.values()}
            stuck = processes.kill_descendants(spare=others, alone=not others)
            ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else "broke"
            self.send(event="lost", run=run.key, ending=ending, stuck=sorted(stuck))

    def _end(self, key: str) -> None:
        """Kill a run process; `_reap` kills the rest, which this process then adopts."""
        for run in self._runs.values():
            if run.key == key:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid, signal.SIGKILL)


def _start_fresh(request: Mapping[str, Any], inherited: Sequence[int]) -> int:
    """Start a run process that imports everything itself; `inherited` begins with its pipe."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ci.worker.run_process", *map(str, inherited)],
        stdin=subprocess.PIPE,
        pass_fds=inherited,
    )
    assert process.stdin
    with process.stdin:
        process.stdin.write(json.dumps(request).encode())
    process.returncode = 0  # it is waited for by its id
    return process.pid


if __name__ == "__main__":
    main(*sys.argv[1:])
