"""Run torchrun from a notebook."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def torchrun(folder: str, script: str, processes: int, *options: object) -> str:
    """Run `torchrun --nproc-per-node PROCESSES SCRIPT OPTIONS` in a folder; return what it prints.

    Raises RuntimeError, with what it wrote to the standard error, if it fails.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr=localhost", f"--nproc-per-node={processes}"]
    command += [str(Path(script).resolve()), *map(str, options)]
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    done = subprocess.run(
        command,
        cwd=folder,
        env={"GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1", **os.environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout
