"""The provenance of a handout: what ran, with which versions, on which machine, and when."""

import subprocess
from pathlib import Path

from ci.judge.outcome import Outcome


def provenance(outcome: Outcome) -> dict[str, str]:
    """What is known about a run, by keys that `ci.handout.translations` has."""
    environment = outcome.environment
    parameters = ", ".join(f"{name} = {value}" for name, value in outcome.run.parameters.items())
    values = {
        "parameters": parameters,
        "device": outcome.run.device,
        "torch": environment.get("torch", ""),
        "Python": environment.get("Python", ""),
        "machine": environment.get("machine", ""),
        "image": environment.get("image", ""),
        "commit": course_commit(outcome.run.lesson.path.parent),
        "date": outcome.date,
        "duration": f"{outcome.seconds:.1f} s",
    }
    return {label: value for label, value in values.items() if value}


def course_commit(folder: Path) -> str:
    """The commit of the course, with `+` if files have changed since; empty outside of Git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty= +", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def run_folder(outcome: Outcome) -> Path:
    """Where the handouts of a run are, below a page: at its top for the default parameters."""
    run = outcome.run
    return Path() if run.is_default else Path(run.lesson.name, run.key)
