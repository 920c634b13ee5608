"""Why a run has to be executed: what has changed since its last execution, in words."""

from collections.abc import Mapping
from pathlib import Path

from ci.machine import atomic
from ci.plan import attempts, keys
from ci.plan.planner import Run

REASONS = "reasons"  # folder below build/


def note(build: Path, run: Run, status: str, executor: Mapping[str, object]) -> None:
    """Note what an execution of `run` depended on, for `reason`."""
    facts = {"date": attempts.timestamp(), "status": status, "parts": _parts(run, executor)}
    atomic.write_json(_path(build, run), facts)


def reason(build: Path, run: Run, executor: Mapping[str, object], *, fresh: bool = False) -> str:
    """Why `run`, which is not unchanged, has to be executed."""
    if fresh:
        return "--fresh executes every lesson"
    before = atomic.read_json(_path(build, run))
    if not before:
        known = (build / REASONS / run.lesson.name).is_dir()
        return f"never executed{' with these parameters, threads and GPUs' if known else ''}"
    date, parts = before.get("date"), before.get("parts", {})
    changed = [name for name, part in _parts(run, executor).items() if parts.get(name) != part]
    if changed:
        return f"changed since {date}: {', '.join(changed)}"
    if before.get("status") != "verified":
        return f"{before.get('status')} on {date}"
    return f"the files of its execution of {date} are gone or were modified"


def _path(build: Path, run: Run) -> Path:
    return build / REASONS / run.lesson.name / f"{run.key}.json"


def _parts(run: Run, executor: Mapping[str, object]) -> dict[str, str]:
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
