"""The commands: `invoke run`, and `invoke --list` for the others. Parse, call, report; no logic."""

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from invoke import Context, Exit, task

ROOT = Path(__file__).parent
LESSONS = ROOT / "lessons"
BUILD = ROOT / "build"


@task(
    iterable=["p"],
    help={
        "lessons": "numbers or names, comma separated: 03,tensors (default: all)",
        "p": "a parameter, name=value; name=2,4,16 is a sweep; repeatable",
        "gpus": "auto | all | none | a number | device=0,2 (default: auto)",
        "handouts": "default | all: with all, each run of a sweep gets handouts too",
        "timeout": "seconds that a run may take (default: the lesson's, or 600)",
        "jobs": "lessons that go on at once (default: one a core; one on GPUs)",
    },
)
def run(
    _: Context,
    lessons: str = "",
    p: Sequence[str] | None = None,
    gpus: str = "auto",
    handouts: str = "default",
    timeout: str = "",
    jobs: str = "",
) -> None:
    """Execute the lessons, check what they show, and write the handouts."""
    with _boundary():
        from ci import check, course, engine, handout, oracle, plan, publish, report
        from ci import gpus as devices

        request = devices.parse(gpus)
        report.forget(BUILD)
        paths = course.find(LESSONS)
        chosen = [course.read(path) for path in course.select(paths, lessons)]
        oracles = {lesson.name: oracle.load(lesson) for lesson in chosen}
        granted = devices.grant(request)
        slots = plan.slots(jobs, granted)
        runs = plan.runs(chosen, p or [], granted, timeout_s=plan.seconds(timeout), slots=slots)
        notes = publish.notes(request, granted, handouts)
        for lesson in chosen:
            handout.check_formulas(lesson)

        outcomes = [check.not_run(run) for run in runs if run.lacks_gpus]
        with report.Screen(runs) as screen:
            for note in notes:
                screen.say(note["en"])
            for outcome in outcomes:
                screen.on_outcome(outcome)
            for event in engine.start(
                [run for run in runs if not run.lacks_gpus], BUILD / "runs", slots=slots
            ):
                screen.on_event(event)
                if event.kind == "ended":
                    judged = check.outcome(event, oracles[event.run.lesson.name])
                    outcomes.append(report.keep(judged))
                    screen.on_outcome(judged)
        outcomes.sort(key=lambda outcome: runs.index(outcome.run))
        report.write(outcomes, BUILD)
        screen.finish(outcomes)
        order = [path.stem for path in paths]
        for folder in publish.publish(outcomes, order, BUILD, handouts=handouts, notes=notes):
            screen.say(f"{folder.relative_to(ROOT)}/")
    sys.exit(check.status(outcomes, request))


@task
def clean(_: Context) -> None:
    """Remove what runs have left in build/; the handouts stay."""
    for name in ("runs", "drafts", "sweep"):
        shutil.rmtree(BUILD / name, ignore_errors=True)


@contextlib.contextmanager
def _boundary() -> Iterator[None]:
    """Turn what goes wrong into one line and an exit status."""
    from ci.errors import CourseError

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except CourseError as error:
        raise Exit(str(error), error.status) from None
    except OSError as error:
        raise Exit(f"{error.filename or 'the machine'}: {error.strerror}", 3) from None
    except KeyboardInterrupt:
        raise Exit("interrupted; nothing was published", 1) from None
