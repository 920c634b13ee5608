"""What `invoke run` has to do: its options, its runs, and which of them are unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.errors import CourseError, MachineError, UsageError
from ci.execute import executor
from ci.execute.executor import Executor
from ci.execute.slurm import cluster
from ci.handout import manifest, publish
from ci.handout.editions import Note
from ci.judge.outcome import skipped_outcome
from ci.lesson.lesson import Lesson, find_lessons, select_lessons
from ci.lesson.node import NotebookNode
from ci.lesson.script import LessonError
from ci.plan import attempts, gpus, known_lessons, planner
from ci.plan.gpus import Gpu
from ci.plan.planner import Run
from ci.plan.run_cache import RunCache, Work
from ci.report import report_files

if TYPE_CHECKING:
    from ci.lesson.oracle import Oracle


@dataclass(frozen=True)
class Options:
    """The options of `invoke run`, as they were typed."""

    lessons: str = ""
    parameters: Sequence[str] = ()
    on: str = "auto"
    slurm_args: str = ""
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
    html_first: bool = False
    detach: bool = False


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
    on = executor.parse(options.on, options.slurm_args, detach=options.detach)
    found = cluster.find() if on == "slurm" else None
    granted = found.grant(request) if found else gpus.grant(request)
    slots = planner.count_slots(options.jobs, granted, found.capacity(granted) if found else None)
    notes = publish.notes(request, granted, options.handouts)
    lessons = _read(selected, build)
    runs = planner.runs(
        lessons,
        options.parameters,
        granted,
        timeout_s=timeout_s,
        slots=slots,
        threads=1 if found else None,
    )
    if options.failed:
        runs = _failed(runs, build)
    chosen, remarks = executor.choose(
        on,
        granted,
        root / "docker",
        slots=slots,
        as_root=options.as_root,
        slurm_args=options.slurm_args,
    )
    cache = RunCache(build, chosen.facts)
    work = cache.work(
        [run for run in runs if not run.lacks_gpus],
        manifest.settled(build, notes) if options.handouts != "none" else lambda *_: True,
        fresh=options.fresh,
    )
    return Plan(
        order=[path.stem for path in paths],
        runs=runs,
        work=work,
        oracles=_oracles(work.lessons),
        cache=cache,
        executor=chosen,
        granted=granted,
        slots=slots,
        notes=notes,
        remarks=remarks,
        gpus_required=request.strict,
    )


def _oracles(lessons: Sequence[Lesson]) -> dict[str, Mapping[str, Oracle]]:
    if not lessons:
        return {}
    from ci.lesson import oracle  # imports NumPy, which an unchanged run does without

    return {lesson.name: oracle.load(lesson) for lesson in lessons}


def _read(paths: Sequence[Path], build: Path) -> list[Lesson]:
    """The lessons. Raises CourseError with all faults of all of them."""
    try:
        return [known_lessons.read(path, build) for path in paths]
    except LessonError:
        raise CourseError("\n".join(faults(paths, build))) from None


def faults(paths: Sequence[Path], build: Path) -> list[str]:
    """The faults of scripts, oracles and prose, as far as these can be read, lesson by lesson."""
    from ci.handout import check_prose

    read = [_script_faults(path, build) for path in paths]
    prose = check_prose.faults([*zip(paths, (cells for _, cells in read), strict=True)])
    return [line for (lines, _), more in zip(read, prose, strict=True) for line in lines + more]


def _script_faults(path: Path, build: Path) -> tuple[list[str], Sequence[NotebookNode]]:
    """The faults of a lesson's script and oracle, and the cells that could be read."""
    from ci.lesson import oracle

    cells: Sequence[NotebookNode] = ()
    try:
        lesson = known_lessons.read(path, build)
        cells = lesson.notebook.cells
        oracle.load(lesson)
    except LessonError as error:
        return str(error).splitlines(), error.cells
    except (UsageError, MachineError):
        raise
    except CourseError as error:
        return str(error).splitlines(), cells
    return [], cells


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


def dry_run(planned: Plan, options: Options) -> Iterator[str]:
    """One line per run: what `invoke run` would do with it, and why."""
    unchanged = {id(previous.run): previous for previous in planned.work.unchanged}
    judge = {id(previous.run): previous for previous in planned.work.judge}
    for run in planned.runs:
        if run.lacks_gpus:
            yield f"{run.name}: skip: {skipped_outcome(run).status_text}"
        elif id(run) in unchanged:
            yield f"{run.name}: unchanged since {unchanged[id(run)].facts.get('date')}"
        elif id(run) in judge:
            date = judge[id(run)].facts.get("date")
            yield (
                f"{run.name}: judge the execution of {date} again and write its handouts: expected "
                "values, prose or the code for them changed, or handouts are missing"
            )
        else:
            why = "--fresh executes every lesson" if options.fresh else planned.cache.reason(run)
            yield f"{run.name}: execute: {why}"


def valid_plan(options: Options, root: Path) -> Plan:
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
