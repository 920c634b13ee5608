"""What a page says of the run that it shows: with what, where, of which course and when."""

import subprocess
from pathlib import Path

from ci.judge.verdicts import Outcome


def of(outcome: Outcome) -> dict[str, str]:
    """The facts of a run, those that are known, by keys that `ci.handout.translations` has."""
    environment = outcome.environment
    values = ", ".join(f"{name} = {value}" for name, value in outcome.run.parameters.items())
    facts = {
        "parameters": values,
        "device": outcome.run.device,
        "torch": environment.get("torch", ""),
        "Python": environment.get("Python", ""),
        "machine": environment.get("machine", ""),
        "image": environment.get("image", ""),
        "commit": commit(outcome.run.lesson.path.parent),
        "date": outcome.date,
        "duration": f"{outcome.seconds:.1f} s",
    }
    return {label: fact for label, fact in facts.items() if fact}


def commit(folder: Path) -> str:
    """The commit of the course, and whether it was changed since; empty outside a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty= +", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def folder(outcome: Outcome) -> Path:
    """Where a run's handouts stand below a page: at its top for the default parameters."""
    run = outcome.run
    return Path() if run.is_default else Path(run.lesson.name, run.key)
