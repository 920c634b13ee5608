"""Run torchrun from a notebook."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path


def torchrun(folder: str, script: str, processes: int, *options: object) -> str:
    """Run `torchrun --nproc-per-node PROCESSES SCRIPT OPTIONS` in a folder; return what it prints.

    Raises RuntimeError, with what it wrote to the standard error, if it fails.
    """
    # One process imports torch for all ranks. (torchrun itself has threads: a fork of it may hang.)
    arguments = ["--run-path", "--start-method=forkserver", "--monitor-interval=0.02"]
    with tempfile.TemporaryDirectory() as name, socket.socket() as reserved:
        # A free port, which nobody but torchrun gets: it sets the same option.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("", 0))
        port = reserved.getsockname()[1]
        arguments += ["--master-addr=localhost", f"--master-port={port}"]
        arguments += [f"--nproc-per-node={processes}", str(Path(script).resolve())]
        arguments += map(str, options)
        printed = Path(name, "out"), Path(name, "errors")
        # A fork of a process that has imported torch already, as for the ranks of `launch`.
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_run, args=(folder, arguments, printed))
        process.start()
        try:
            process.join()
        finally:
            process.terminate()  # if the caller is interrupted; torchrun then ends its processes
        if process.exitcode:
            raise RuntimeError(printed[1].read_text())
        return printed[0].read_text()


def _run(folder: str, arguments: list[str], printed: tuple[Path, Path]) -> None:
    """What the command torchrun does, with its output in two files."""
    from torch.distributed.run import main

    threading.Thread(target=_end_with_caller, daemon=True).start()
    for path, descriptor in zip(printed, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(folder)
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    multiprocessing.set_forkserver_preload(["torch.distributed.nn", "torch._dynamo"])
    sys.argv[0] = "torchrun"
    main(arguments)


def _end_with_caller() -> None:
    """End torchrun and its processes when the caller's process has ended."""
    caller = multiprocessing.parent_process()
    assert caller is not None
    caller.join()
    os.kill(os.getpid(), signal.SIGTERM)
