"""Why a run has to be executed: what has changed since its last execution, in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ci.plan import keys
from ci.plan.planner import Run


def reason(run: Run, executor: Mapping[str, object], record: Mapping[str, Any]) -> str:
    """Why `run`, which is not unchanged since the execution of this record, has to be executed."""
    date, before = record["date"], record["parts"]
    now = parts(run, executor)
    if changed := [name for name, part in now.items() if before.get(name) != part]:
        return f"changed since {date}: {', '.join(changed)}"
    if record["status"] != "verified":
        return f"{record['status']} on {date}"
    return f"the files of its execution of {date} are gone or were modified"


def parts(run: Run, executor: Mapping[str, object]) -> dict[str, str]:
    """Digests of what an execution depends on, by name."""
    script = run.lesson.path
    others = [path for path in keys.inputs(script) if path != script]
    return {
        "its script": run.lesson.digest,
        **{f"lessons/{Path(p).relative_to(script.parent)}": d for p, d in keys.contents(others)},
        "the pipeline's code": keys.digest(keys.code(keys.EXECUTES)),
        "the machine": keys.digest(keys.machine(), [gpu.name for gpu in run.gpus]),
        "the packages or settings of Python": keys.digest(executor),
    }
