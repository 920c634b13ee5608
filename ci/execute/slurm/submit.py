"""Becomes srun, once the controller answers: `python submit.py srun WORD…`.

The controller may be silent for five minutes; srun would give up after seconds. If the pipeline is
killed, srun gets SIGTERM and cancels its job, also one that waits in the queue.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PATIENCE_S, PAUSE_S = 360.0, 2.0
PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    ping = ["scontrol", "ping"]
    while subprocess.run(ping, capture_output=True).returncode and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    os.execvp(sys.argv[1], sys.argv[1:])
