"""A task of a job array: `python -P -m ci.execute.slurm.array_task BATCH`.

It claims runs of a batch, has a fork server on its node execute them one after the other, and
appends the server's messages to its own file of events. It needs no connection to anybody.
"""

import json
import os
import sys
import time
from pathlib import Path

from ci.execute.local import Process
from ci.execute.slurm import cluster
from ci.execute.slurm.batch import ENDS, EVENTS, Batch


def main(folder: str) -> None:
    """Execute runs until none waits, or the job's time is too short for another one."""
    batch = Batch(Path(folder))
    if not (batch.folder / EVENTS).is_dir():  # all runs are done and collected
        return
    task = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    about, left_s = batch.about, cluster.seconds_left(os.environ["SLURM_JOB_ID"])
    last_start = time.monotonic() + left_s - about["longest_s"]
    server = Process("ci.worker.server", about["variables"])
    try:
        with (batch.folder / EVENTS / task).open("ab", buffering=0) as events:
            _serve(batch, task, server, events.fileno(), last_start)
    finally:
        server.close()


def _serve(batch: Batch, task: str, server: Process, events: int, last_start: float) -> None:
    claims, run = batch.claims(task), ""
    for line in server.lines():
        os.write(events, line.encode())
        event = json.loads(line)["event"]
        if event not in ("ready", *ENDS):
            continue
        os.fsync(events)
        run = ""
        request = next(claims, None) if time.monotonic() < last_start else None
        if request is None:
            return
        run = request["run"]
        server.send(json.dumps(request) + "\n")
    if run:
        lost = {"event": "lost", "run": run, "ending": server.ending(), "stuck": []}
        os.write(events, json.dumps(lost).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
