"""`invoke run` from beginning to end."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
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
from ci.plan import attempts, gpus, parsed_lessons, planner, run_cache, schedule
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.plan.run_cache import RUNS, RunCache, Work
from ci.report import github, report_files
from ci.report.terminal import Terminal
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


def run(options: Options, root: Path) -> int:
    """Run the course in the folder `root`, and return the exit status.

    Raises CourseError for a fault that keeps the plan from starting, or handouts from rendering.
    """
    build = root / "build"
    with atomic.exclusive(build, on_wait=lambda: print(WAITING, flush=True)):
        attempts.remove_incomplete(build / RUNS)
        atomic.remove_abandoned_folders()
        return _run(options, root, build)


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


def _run(options: Options, root: Path, build: Path) -> int:
    planned = _valid_plan(options, root)
    runs, work, oracles, cache = planned.runs, planned.work, planned.oracles, planned.cache
    slots, notes = planned.slots, planned.notes
    ordered = schedule.order(work.execute, cache.seconds)

    events: list[Event] = []
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        # Execute, judge, and render handouts, all at the same time.
        executing = stack.enter_context(
            closing(
                engine.execute(
                    ordered, build / RUNS, planned.executor, slots=slots, gpus=planned.granted
                )
            )
        )
        pool = stack.enter_context(HandoutPool())
        check_prose.check(work.lessons)  # while the kernels start
        terminal = stack.enter_context(Terminal(runs))
        for remark in (*planned.remarks, *(note["en"] for note in notes)):
            terminal.print(remark)

        def on_event(event: Event) -> None:
            events.append(event)
            terminal.on_event(event)

        for outcome in _outcomes(runs, work, oracles, executing, on_event):
            outcomes.append(keep(outcome, cache))
            terminal.on_outcome(outcomes[-1])
            publish.submit(outcomes[-1], pool, handouts=options.handouts, notes=notes)

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
