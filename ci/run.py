"""`invoke run` from beginning to end."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ci import atomic
from ci.errors import UsageError
from ci.execute import engine, executor
from ci.execute.events import Event, Finished
from ci.execute.executor import Executor
from ci.handout import check_prose, manifest, publish
from ci.handout.handout import Note
from ci.handout.pool import HandoutPool
from ci.judge import agreement, verdicts
from ci.judge.outcome import Outcome, Status, exit_status
from ci.lesson import oracle
from ci.lesson.lesson import find_lessons, select_lessons
from ci.lesson.oracle import Oracle
from ci.plan import attempts, gpus, parsed_lessons, planner, reasons, run_cache, schedule
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.plan.run_cache import RUNS, RunCache, Work
from ci.report import github, report_files
from ci.report.terminal import Terminal, interrupted_text
from ci.report.utilization import slot_utilization

WAITING = "another invocation is using this checkout: waiting until it ends"


@dataclass(frozen=True)
class Options:
    """The options of `invoke run`, as they were typed."""

    lessons: str = ""
    parameters: Sequence[str] = ()
    on: str = "auto"
    gpus: str = "auto"
    handouts: str = "default"
    timeout: str = ""
    jobs: str = ""
    fresh: bool = False
    as_root: bool = False
    failed: bool = False
    dry_run: bool = False
    stop_first: bool = False
    quiet: bool = False
    verbose: bool = False


def run(options: Options, root: Path, pool: HandoutPool | None = None) -> int:
    """Run the course in the folder `root`, and return the exit status.

    Handouts are made by `pool`, or by new processes. Raises CourseError for a fault that keeps the
    plan from starting, or handouts from rendering.
    """
    build = root / "build"
    with atomic.exclusive(build, on_wait=lambda: print(WAITING, flush=True)):
        if options.dry_run:
            for line in dry_run(plan(options, root), options, build):
                print(line)
            return 0
        attempts.remove_incomplete(build / RUNS)
        atomic.remove_abandoned_folders()
        return _run(options, root, build, pool)


@dataclass(frozen=True)
class Plan:
    """What a run has to do, once its options and lessons are known to be valid."""

    order: list[str]
    runs: list[Run]
    work: Work
    oracles: Mapping[str, Mapping[str, Oracle]]
    cache: RunCache
    executor: Executor
    granted: Sequence[Gpu]
    slots: int
    notes: list[Note]
    remarks: list[str]
    gpus_required: bool


def plan(options: Options, root: Path) -> Plan:
    """Which lessons run with which parameters, where, and which of them have to be executed.

    Raises UsageError for an option, CourseError for a lesson, MachineError for the machine.
    """
    build = root / "build"
    request = gpus.parse(options.gpus)
    paths = find_lessons(root / "lessons")
    attempts.remove_bytecode(root / "lessons")
    selected = select_lessons(paths, options.lessons)
    timeout_s = planner.parse_timeout(options.timeout)
    granted = gpus.grant(request)
    slots = planner.count_slots(options.jobs, granted)
    notes = publish.notes(request, granted, options.handouts)
    executor.parse(options.on)
    lessons = [parsed_lessons.read(path, build) for path in selected]
    runs = planner.runs(lessons, options.parameters, granted, timeout_s=timeout_s, slots=slots)
    if options.failed:
        runs = _failed(runs, build)
    chosen, remarks = executor.choose(
        options.on, granted, root / "docker", slots=slots, as_root=options.as_root
    )
    cache = RunCache(build, chosen.facts)
    work = cache.work(
        [run for run in runs if not run.lacks_gpus],
        manifest.settled(build, notes),
        fresh=options.fresh,
    )
    return Plan(
        order=[path.stem for path in paths],
        runs=runs,
        work=work,
        oracles={lesson.name: oracle.load(lesson) for lesson in work.lessons},
        cache=cache,
        executor=chosen,
        granted=granted,
        slots=slots,
        notes=notes,
        remarks=remarks,
        gpus_required=request.strict,
    )


def _failed(runs: list[Run], build: Path) -> list[Run]:
    """Those that failed in the last run; all of them if nothing is known of it."""
    found = report_files.failed(build)
    if found is None:
        return runs
    lessons = [lesson for lesson, _ in found]
    chosen = [run for run in runs if (run.lesson.name, dict(run.parameters)) in found]
    chosen = chosen or [run for run in runs if run.lesson.name in lessons]
    if not chosen:
        raise UsageError("--failed: none of these lessons failed in the last run")
    return chosen


def dry_run(planned: Plan, options: Options, build: Path) -> Iterator[str]:
    """One line per run: what `invoke run` would do with it, and why."""
    unchanged = {id(previous.run): previous for previous in planned.work.unchanged}
    judge = {id(previous.run): previous for previous in planned.work.judge}
    facts = planned.executor.facts()
    for run in planned.runs:
        if run.lacks_gpus:
            yield f"{run.name}: skip: {verdicts.skipped(run).status_text}"
        elif id(run) in unchanged:
            yield f"{run.name}: unchanged since {unchanged[id(run)].facts.get('date')}"
        elif id(run) in judge:
            date = judge[id(run)].facts.get("date")
            yield (
                f"{run.name}: judge the execution of {date} again and write its handouts: expected "
                "values, prose or the code for them changed, or handouts are missing"
            )
        else:
            yield f"{run.name}: execute: {reasons.reason(build, run, facts, fresh=options.fresh)}"


def _valid_plan(options: Options, root: Path) -> Plan:
    """The plan. The last reports go with it, but stay if a word of the command line is wrong."""
    try:
        planned = plan(options, root)
    except UsageError:
        raise
    except BaseException:
        report_files.forget(root / "build")
        raise
    report_files.forget(root / "build")
    return planned


def _run(options: Options, root: Path, build: Path, pool: HandoutPool | None) -> int:
    planned = _valid_plan(options, root)
    runs, work, oracles, cache = planned.runs, planned.work, planned.oracles, planned.cache
    slots, notes = planned.slots, planned.notes
    ordered = schedule.order(work.execute, cache.seconds)

    events: list[Event] = []
    outcomes: list[Outcome] = []
    terminal = Terminal(
        runs, expected_s=cache.seconds, quiet=options.quiet, verbose=options.verbose
    )
    with ExitStack() as stack, _interruptible(runs, outcomes):
        # Execute, judge, and render handouts, all at the same time.
        executing = stack.enter_context(
            closing(
                engine.execute(
                    ordered, build / RUNS, planned.executor, slots=slots, gpus=planned.granted
                )
            )
        )
        pool = pool or stack.enter_context(HandoutPool())
        check_prose.check(work.lessons)  # while the kernels start
        stack.enter_context(terminal)
        for remark in (*planned.remarks, *(note["en"] for note in notes)):
            terminal.print(remark)
        if options.verbose:
            for line in dry_run(planned, options, build):
                terminal.print(line)

        def on_event(event: Event) -> None:
            events.append(event)
            terminal.on_event(event)

        for outcome in _outcomes(runs, work, oracles, executing, on_event):
            outcomes.append(keep(outcome, cache))
            if outcome.status not in (Status.NEEDS_GPUS, Status.UNCHANGED):
                reasons.note(build, outcome.run, outcome.status, planned.executor.facts())
            terminal.on_outcome(outcomes[-1])
            publish.submit(outcomes[-1], pool, handouts=options.handouts, notes=notes)
            if options.stop_first and not (outcome.green or outcome.skipped):
                terminal.print(f"-x: stopped at the first failure, {outcome.run.name}")
                break

        # Report, then publish: a fault while publishing must not prevent the report.
        outcomes.sort(key=lambda outcome: runs.index(outcome.run))
        matrices = agreement.matrices(outcomes, oracles)
        utilization = slot_utilization(events, slots)
        report_files.write(outcomes, build, matrices, utilization)
        terminal.finish(outcomes, matrices, utilization)
        for annotation in github.annotations(outcomes):
            terminal.print(annotation)
        for folder in publish.publish(
            outcomes,
            planned.order,
            build,
            pool,
            handouts=options.handouts,
            notes=notes,
            agreed=matrices,
        ):
            terminal.print(f"{folder.relative_to(root)}/")
    return exit_status(outcomes, gpus_required=planned.gpus_required)


@contextmanager
def _interruptible(runs: Sequence[Run], outcomes: Sequence[Outcome]) -> Iterator[None]:
    """Let an interrupt say what it has left."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted_text(runs, outcomes)) from None


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
            yield verdicts.skipped(run)
    for previous in work.unchanged:
        yield verdicts.unchanged(previous)
    for previous in work.judge:
        yield verdicts.judge_again(previous, oracles[previous.run.lesson.name])
    for event in executing:
        on_event(event)
        if isinstance(event, Finished):
            yield verdicts.judge(event.execution, oracles[event.execution.run.lesson.name])


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
        run_cache.clean(build)
