"""`invoke run` from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ci.execute.events import Event, Finished, Started, Submitted
from ci.handout import publish
from ci.handout.pool import HandoutPool
from ci.judge import agreement
from ci.judge.outcome import (
    Outcome,
    Status,
    exit_status,
    skipped_outcome,
    submitted_outcome,
    unchanged_outcome,
    without_prose,
)
from ci.machine import atomic
from ci.plan import attempts, run_cache, schedule
from ci.plan.planner import Run
from ci.plan.run_cache import DETACHED, RUNS, RunCache, Work
from ci.report import github, report_files
from ci.report.lines import Log, interrupted_text
from ci.report.utilization import slot_utilization
from ci.run.plan import Options, Plan, dry_run, plan, valid_plan

if TYPE_CHECKING:
    from ci.execute.servers import Servers
    from ci.lesson.lesson import Lesson
    from ci.lesson.oracle import Oracle
    from ci.report.terminal import Terminal

COLLECT = "the same command collects what is submitted, once it is done"
WAITING = "another invocation is using this checkout: waiting until it ends"


def run(
    options: Options, root: Path, pool: HandoutPool | None = None, servers: Servers | None = None
) -> int:
    """Run the course in the folder `root`, and return the exit status.

    Handouts are made by `pool`, or by new processes; `servers` of this machine execute the lessons,
    if they are not executed elsewhere. Raises CourseError for a fault that keeps the plan from
    starting, or handouts from rendering.
    """
    build = root / "build"
    with atomic.exclusive(build, on_wait=lambda: print(WAITING, flush=True)):
        if options.dry_run:
            for line in dry_run(plan(options, root), options):
                print(line)
            return 0
        attempts.remove_incomplete(build / RUNS)
        atomic.remove_abandoned_folders()
        return _run(options, root, build, pool, servers)


def _run(
    options: Options,
    root: Path,
    build: Path,
    pool: HandoutPool | None,
    servers: Servers | None,
) -> int:
    planned = valid_plan(options, root)
    runs, work, oracles, cache = planned.runs, planned.work, planned.oracles, planned.cache
    slots, notes = planned.slots, planned.notes
    ordered = schedule.order(work.execute, cache.seconds)

    events: list[Event] = []
    outcomes: list[Outcome] = []
    written: list[Path] = []
    terminal = _terminal(planned, options)
    with _interruptible(planned, build, outcomes, written), ExitStack() as stack:
        # Execute, judge, and render handouts, all at the same time.
        executing = _execute(ordered, planned, build, servers, detach=options.detach)
        stack.enter_context(closing(executing))
        pool = pool or stack.enter_context(HandoutPool())
        makes_handouts = options.handouts != "none"
        if makes_handouts:
            judged = (previous.run for previous in work.judge)
            if any(run.is_default for run in (*ordered, *judged)):
                pool.start()
            _check_prose(work.lessons)  # while the kernels start
        stack.enter_context(terminal)
        for remark in (*planned.remarks, *(note["en"] for note in notes)):
            terminal.print(remark)
        if options.verbose:
            for line in dry_run(planned, options):
                terminal.print(line)

        def on_event(event: Event) -> None:
            if isinstance(event, Started | Finished):  # a sweep has many events
                events.append(event)
            terminal.on_event(event)

        for outcome in _outcomes(runs, work, oracles, executing, on_event):
            kept = keep(outcome, cache)
            outcomes.append(kept if makes_handouts else without_prose(kept))
            terminal.on_outcome(outcomes[-1])
            if makes_handouts:
                publish.submit(outcomes[-1], pool, handouts=options.handouts, notes=notes)
            if options.stop_first and not (outcome.green or outcome.skipped):
                executing.close()  # the other runs end now, and not after the drafts are made
                terminal.print(f"-x: stopped at the first failure, {outcome.run.name}")
                break

        # Report, then publish: a fault while publishing must not prevent the report.
        places = {id(run): place for place, run in enumerate(runs)}
        outcomes.sort(key=lambda outcome: places[id(outcome.run)])
        matrices = agreement.matrices(outcomes, oracles)
        utilization = slot_utilization(events, slots)
        report_files.write(outcomes, build, matrices, utilization)
        terminal.finish(outcomes, matrices, utilization)
        for annotation in github.annotations(outcomes):
            terminal.print(annotation)
        if any(outcome.status == Status.SUBMITTED for outcome in outcomes):
            terminal.print(COLLECT)
            makes_handouts = False
        for html_only in ((True, False) if options.html_first else (False,)) * makes_handouts:
            written[:] = publish.publish(
                outcomes,
                planned.order,
                build,
                pool,
                handouts=options.handouts,
                notes=notes,
                agreed=matrices,
                html_only=html_only,
            )
            for folder in written:
                name = folder.relative_to(root)
                terminal.print(f"{name}/: the HTML is new" if html_only else f"{name}/")
    return exit_status(outcomes, gpus_required=planned.gpus_required)


@contextmanager
def _interruptible(
    planned: Plan, build: Path, outcomes: Sequence[Outcome], written: Sequence[Path]
) -> Iterator[None]:
    """Let an interrupt say what it has left, after all runs have ended."""
    try:
        yield
    except KeyboardInterrupt:
        detached, is_scheduled = _detached_jobs(build), planned.executor.is_scheduled
        text = interrupted_text(
            planned.runs, outcomes, written, detached, is_scheduled=is_scheduled
        )
        raise KeyboardInterrupt(text) from None


def _detached_jobs(build: Path) -> list[str]:
    if not (build / DETACHED).exists():
        return []
    from ci.execute.slurm import detached

    return detached.jobs(build)


# What follows imports NumPy, nbformat, typst and rich, which an unchanged run does without.


def _terminal(planned: Plan, options: Options) -> Terminal | Log:
    if not planned.work.lessons:
        return Log(quiet=options.quiet)
    from ci.report.terminal import Terminal

    known_s, quiet, verbose = planned.cache.seconds, options.quiet, options.verbose
    return Terminal(planned.runs, expected_s=known_s, quiet=quiet, verbose=verbose)


def _execute(
    runs: Sequence[Run], planned: Plan, build: Path, servers: Servers | None, *, detach: bool
) -> Generator[Event, None, None]:
    """The events of the executions, which start at once."""
    executor = planned.executor
    if detach or (executor.is_scheduled and (build / DETACHED).exists()):
        from ci.execute.slurm import detached

        return detached.execute(
            runs,
            planned.work,
            planned.cache.execution_key,
            build,
            executor,
            slots=planned.slots,
            detach=detach,
        )
    if not runs:
        return (event for event in list[Event]())
    from ci.execute import engine

    return engine.execute(
        runs,
        build / RUNS,
        planned.executor,
        slots=planned.slots,
        gpus=planned.granted,
        servers=servers if planned.executor.shared else None,
    )


def _check_prose(lessons: Sequence[Lesson]) -> None:
    """Raise CourseError for prose that cannot be in all handouts."""
    if lessons:
        from ci.handout import check_prose

        check_prose.check(lessons)


def _outcomes(
    runs: Sequence[Run],
    work: Work,
    oracles: Mapping[str, Mapping[str, Oracle]],
    executing: Iterable[Event],
    on_event: Callable[[Event], None],
) -> Iterator[Outcome]:
    """The outcomes of all runs, those that need no execution first."""
    for run in runs:
        if run.lacks_gpus:
            yield skipped_outcome(run)
    for previous in work.unchanged:
        yield unchanged_outcome(previous.run, previous.attempt, previous.facts)
    if not work.lessons:
        return
    from ci.judge import verdicts

    for previous in work.judge:
        yield verdicts.judge_again(previous, oracles[previous.run.lesson.name])
    for event in executing:
        on_event(event)
        if isinstance(event, Finished):
            yield verdicts.judge(event.execution, oracles[event.execution.run.lesson.name])
        elif isinstance(event, Submitted):
            yield submitted_outcome(event.run, event.place)


def keep(outcome: Outcome, cache: RunCache) -> Outcome:
    """Record an outcome, so that its run need not be executed again."""
    if outcome.skipped or outcome.status == Status.UNCHANGED:
        return outcome
    assert outcome.attempt
    attempt, key = cache.keep(outcome.run, outcome.attempt, outcome.status, outcome.to_json())
    return replace(outcome, attempt=attempt, key=key)


def clean(root: Path) -> None:
    """Remove what runs have left, except each lesson's last attempts, and the handouts."""
    build = root / "build"
    with atomic.exclusive(build, on_wait=lambda: print(WAITING, flush=True)):
        if (build / DETACHED).exists():
            from ci.execute.slurm import detached

            detached.clean(build)
        run_cache.clean(build)
