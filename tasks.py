"""The commands: `invoke run`, and `invoke --list` for the others. Each parses, calls, and exits."""

import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from invoke import Context, task
from invoke.main import program

from ci.command_line import boundary, install

ROOT = Path(__file__).parent
LESSONS = ROOT / "lessons"
DOCKER = ROOT / "docker"
BUILD = ROOT / "build"

install(program)


@task(
    auto_shortflags=False,
    iterable=["p"],
    help={
        "lessons": "numbers or names: 03,tensors; also by position (default: all)",
        "p": "a parameter, name=value; name=2,4,16 is a sweep; repeatable",
        "on": "auto | here | lab | slurm: on this machine, in the lab's containers or on a cluster",
        "slurm-args": "with --on slurm: further words for srun, such as '--account=a --time=30'",
        "detach": "with --on slurm: submit, and do not wait; the same command collects the results",
        "gpus": "auto | all | none | a number | device=0,2 (default: auto)",
        "handouts": "default | all | none: with all, each run of a sweep gets handouts too",
        "timeout": "seconds that a run may take (default: the lesson's, or 600, more on GPUs)",
        "fresh": "execute all lessons, also those that are unchanged since they were verified",
        "jobs": "how many runs execute in parallel (default: one per GPU, or one per core)",
        "as-root": "in the lab, be root in the container",
        "failed": "only the runs that failed in the last run",
        "dry-run": "say what would be executed, and why, and execute nothing",
        "x": "stop at the first failure",
        "q": "quiet: print faults alone",
        "v": "verbose: print each cell, and why each lesson is executed",
        "watch": "run the changed lessons again whenever a file is saved; Ctrl-C ends it",
    },
)
def run(
    _: Context,
    lessons: str = "",
    p: Sequence[str] | None = None,
    on: str = "auto",
    slurm_args: str = "",
    detach: bool = False,
    gpus: str = "auto",
    handouts: str = "default",
    timeout: str = "",
    jobs: str = "",
    fresh: bool = False,
    as_root: bool = False,
    failed: bool = False,
    dry_run: bool = False,
    x: bool = False,
    q: bool = False,
    v: bool = False,
    watch: bool = False,
) -> None:
    """Execute the lessons, check what they show, and write the handouts."""
    with boundary("interrupted; nothing was published"):
        from ci.run.plan import Options
        from ci.run.run import run

        plan = Options(
            lessons, p or (), on, slurm_args, gpus, handouts, timeout, jobs, fresh, as_root
        )
        options = replace(plan, failed=failed, dry_run=dry_run, stop_first=x, quiet=q, verbose=v)
        options = replace(options, detach=detach)
        if watch:
            from ci.run.watch import watch as run_again

            sys.exit(run_again(options, ROOT))
        sys.exit(run(options, ROOT))


@task(
    auto_shortflags=False,
    help={
        "variant": "cuda | cpu (default: cuda)",
        "base-image": "the base image (default: the Dockerfile's)",
        "no-cache": "rebuild every step, even if the image is up to date",
    },
)
def build_lab(
    _: Context, variant: str = "cuda", base_image: str = "", no_cache: bool = False
) -> None:
    """Build the lab's image, unless it is up to date."""
    with boundary():
        from ci.lab import builder

        builder.build_lab(variant, base_image, DOCKER, no_cache=no_cache)


@task(
    auto_shortflags=False,
    help={
        "on": "auto | here | lab | slurm: what to check (default: auto, the lab, then here)",
        "gpus": "auto | all | none | a number | device=0,2 (default: auto)",
    },
)
def doctor(_: Context, on: str = "auto", gpus: str = "auto") -> None:
    """Check the machine and the image, and say what to do; status 3 if the course cannot run."""
    with boundary():
        from ci.doctor.examine import run

        status = run(on, gpus, DOCKER, BUILD)
    sys.exit(status)


@task(
    auto_shortflags=False,
    name="lab",
    help={
        "gpus": "auto | all | none | a number | device=0,2 (default: auto, at most one)",
        "port": "the port of JupyterLab on this machine (default: 8888)",
        "as-root": "be root in the container",
    },
)
def open_lab(_: Context, gpus: str = "auto", port: str = "8888", as_root: bool = False) -> None:
    """Open the lessons in JupyterLab, in a container; Ctrl-C ends it."""
    with boundary():
        from ci.jupyterlab.server import serve

        for line in serve(LESSONS, BUILD / "lab", DOCKER, port=port, gpus=gpus, as_root=as_root):
            print(line, flush=True)


@task(
    auto_shortflags=False,
    help={
        "edition": "students | instructors (default: students)",
        "port": "the port of the handouts on this machine (default: 8000)",
        "open": "open them in the browser",
    },
)
def serve(_: Context, edition: str = "students", port: str = "8000", open: bool = False) -> None:
    """Serve the handouts to browsers on this machine; Ctrl-C ends it."""
    with boundary():
        from ci.handout.serve import serve_edition

        for line in serve_edition(edition, port, BUILD):
            print(line, flush=True)
            if open:
                webbrowser.open(line.partition(" ")[0])


@task(
    auto_shortflags=False,
    help={
        "lessons": "numbers or names: 03,tensors; also by position (default: all)",
        "sample": "how many of the generated mistakes to plant (default: 40)",
        "seed": "which of them: a seed for the draw (default: 0)",
        "all": "plant all of them",
        "jobs": "how many mistakes are tried in parallel (default: one per core)",
    },
)
def prove(
    _: Context,
    lessons: str = "",
    sample: str = "40",
    seed: str = "0",
    all: bool = False,
    jobs: str = "",
) -> None:
    """Plant mistakes in copies of the lessons; status 1 if any goes unnoticed."""
    with boundary():
        from ci.prove.prove import Options, prove

        sys.exit(prove(Options(lessons, sample, seed, all, jobs), ROOT))


@task(
    auto_shortflags=False,
    help={
        "rows": "lessons,40,03,200,unchanged,handout,memory,defaults (default: all of them)",
        "rounds": "how often each contender is measured, in turn (default: 3)",
    },
)
def bench(_: Context, rows: str = "", rounds: str = "3") -> None:
    """Measure the pipeline against others and lower bounds; status 1 if a value differs."""
    with boundary():
        from tests.bench import benchmark

        status = benchmark.run(rows, rounds, ROOT)
    sys.exit(status)


@task(
    auto_shortflags=False,
    help={"lessons": "numbers or names: 03,tensors; also by position (default: all)"},
)
def lint(_: Context, lessons: str = "") -> None:
    """Print all faults of lessons and oracles that show without executing; status 1 if any."""
    with boundary():
        from ci.lint import lint

        sys.exit(lint(lessons, ROOT))


@task(auto_shortflags=False, help={"lessons": "the name, such as 09_mean; also by position"})
def new(_: Context, lessons: str = "") -> None:
    """Write a new lesson and its oracle, which verify at once: `invoke new 09_mean`."""
    with boundary():
        from ci.new_lesson import write

        for path in write(lessons, LESSONS):
            print(path.relative_to(ROOT))
        print(f"verify it with: invoke run {lessons}")


@task
def clean(_: Context) -> None:
    """Remove what runs have left in build/, except each lesson's last three, and the handouts."""
    with boundary():
        from ci.run.run import clean

        clean(ROOT)
