"""`invoke prove`: plants mistakes in copies of the course, and reports those that go unnoticed."""

import json
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.progress import track
from rich.table import Column, Table

from ci.errors import CourseError, UsageError
from ci.execute.local import Process
from ci.lesson import reader
from ci.lesson.lesson import Lesson, find_lessons, select_lessons
from ci.lesson.parameters import Value
from ci.machine import atomic
from ci.plan.planner import THREAD_VARIABLES, count_slots
from ci.prove.forks import MutantStatus, Verdict
from ci.prove.mutants import Mutant
from ci.prove.mutants_file import MutantsFile
from ci.report.console import PatientConsole

MIN_WIDTH = 100  # of the table, in a log as well

Result = tuple[Mutant, Verdict]


@dataclass(frozen=True)
class Options:
    """The options of `invoke prove`, as they were typed."""

    lessons: str = ""
    sample: str = "40"
    seed: str = "0"
    all: bool = False
    jobs: str = ""


def prove(options: Options, root: Path) -> int:
    """Plant mistakes in the course of the folder `root`; 1 if any goes unnoticed, else 0.

    Writes `build/prove.json`. Raises CourseError if a lesson is not verified as it is.
    """
    paths = find_lessons(root / "lessons")
    selected = select_lessons(paths, options.lessons)
    others = [path for path in paths if path not in selected]
    lessons = [reader.read(path) for path in [*selected, *others]]
    file = MutantsFile(root / "tests" / "mutants.toml")
    sample = None if options.all else _whole(options.sample, "--sample")
    mutants = choose(
        file, lessons, sample=sample, seed=_whole(options.seed, "--seed"), selected=len(selected)
    )
    tried = try_mutants(mutants, lessons, file, jobs=count_slots(options.jobs, ()))
    results = list(track(tried, "planting mistakes", total=len(mutants), console=_console()))
    show(results, file)
    facts = [{"mutant": str(mutant), **asdict(verdict)} for mutant, verdict in results]
    atomic.write(root / "build/prove.json", json.dumps(facts, indent=1, ensure_ascii=False))
    return exit_status(results)


def exit_status(results: Sequence[Result]) -> int:
    """1 if any mutant survived, else 0."""
    return int(any(verdict.status == MutantStatus.SURVIVED for _, verdict in results))


def _whole(text: str, option: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{option} {text}: must be a whole number, at least 0")
    return int(text)


def choose(
    file: MutantsFile,
    lessons: Sequence[Lesson],
    *,
    sample: int | None,
    seed: int,
    selected: int | None = None,
) -> list[Mutant]:
    """The named mutants, and `sample` of the generated ones, drawn by `seed`; all for None.

    Those of the first `selected` lessons only, if not None. The other lessons can notice a mistake
    in a module that they import too.
    """
    names = {lesson.name for lesson in lessons[:selected]}
    generated = [mutant for mutant in file.generated(lessons) if mutant.lessons[0] in names]
    if sample is not None and sample < len(generated):
        drawn = random.Random(seed).sample(range(len(generated)), sample)
        generated = [generated[i] for i in sorted(drawn)]
    return file.named(lessons[:selected]) + generated


def try_mutants(
    mutants: Sequence[Mutant], lessons: Sequence[Lesson], file: MutantsFile, *, jobs: int
) -> Iterator[Result]:
    """Try each mutant in a copy of the course, `jobs` at once, and yield the results.

    A mutant that is not noticed is tried in the other lessons that use the changed file, then with
    extra parameters, then with figures, in which an error would be noticed. One that is declared
    equivalent is not tried: nothing would end it before the last cell.
    Raises CourseError if a lesson is not verified as it is.
    """
    for mutant in mutants:
        if mutant.equivalent:
            yield mutant, Verdict(MutantStatus.EQUIVALENT, mutant.equivalent)
    tried = [mutant for mutant in mutants if not mutant.equivalent]
    survivors = dict.fromkeys(tried, Verdict(MutantStatus.SURVIVED))
    no_parameters: Mapping[str, Value] = {}
    defaults = [(lesson, no_parameters, False) for lesson in lessons]
    extra = [(lesson, more, False) for lesson in lessons for more in file.extra_parameters(lesson)]
    figures_drawn = [(lesson, no_parameters, True) for lesson in lessons]
    for lesson, parameters, figures in defaults + extra + figures_drawn:
        chosen = [m for m in survivors if lesson.name in m.lessons]
        if parameters or figures:
            chosen = [mutant for mutant in chosen if not mutant.check]
        for mutant, verdict in _try(chosen, lesson, parameters, figures, jobs):
            survivors[mutant] = verdict
            if verdict.status != MutantStatus.SURVIVED:
                del survivors[mutant]
                yield mutant, verdict
    yield from survivors.items()


def _try(
    mutants: Sequence[Mutant],
    lesson: Lesson,
    parameters: Mapping[str, Value],
    figures: bool,
    jobs: int,
) -> Iterator[Result]:
    """The verdict on each mutant by one lesson, from a process of its own."""
    if not mutants:
        return
    request = {
        "script": lesson.path,
        "parameters": parameters,
        "figures": figures,
        "mutants": mutants,
        "jobs": jobs,
    }
    remaining = dict(enumerate(mutants))
    with tempfile.TemporaryDirectory(prefix="prove-") as folder:
        variables = {
            **dict.fromkeys(THREAD_VARIABLES, "1"),  # a process with more threads cannot be forked
            "CUDA_VISIBLE_DEVICES": "",  # neither can a process that uses a GPU
            "MPLBACKEND": "template",  # draws nothing
            "IPYTHONDIR": folder,
            "TMPDIR": folder,
        }
        path = Path(folder) / "request.pickle"
        path.write_bytes(pickle.dumps(request))
        with closing(Process("ci.prove.trials", variables)) as process:
            process.send(f"{path}\n")
            for number, status, reason in map(json.loads, process.lines()):
                if number is None:
                    raise CourseError(f"nothing is proven: {reason}")
                yield remaining.pop(number), Verdict(MutantStatus(status), reason)
            if remaining:
                fault = f"the process that executes {lesson.name} {process.ending()}"
                raise CourseError(f"nothing is proven: {fault}")


def _console() -> PatientConsole:
    console = PatientConsole(soft_wrap=True)
    console.width = max(console.width, MIN_WIDTH)
    return console


def show(results: Sequence[Result], file: MutantsFile) -> None:
    """Print the table, why some mutants may go unnoticed, and the survivors."""
    console = _console()
    console.print(_table(results))
    for name, reason in file.excluded.items():
        console.print(f"excluded: lessons/{name}: {reason}")
    reasons = Counter(v.reason for _, v in results if v.status == MutantStatus.EQUIVALENT)
    for reason, number in reasons.items():
        console.print(f"equivalent: {number}: {reason}")
    for mutant, verdict in results:
        if verdict.status == MutantStatus.SURVIVED:
            because = f"it must make '{mutant.check}' differ" if mutant.check else verdict.reason
            console.print(f"survived: {mutant}" + (f" ({because})" if because else ""))


def _table(results: Sequence[Result]) -> Table:
    """The number of mutants by lesson, kind and status."""
    headers = (Column(header, no_wrap=True) for header in ("lesson", "mutants", *MutantStatus))
    table = Table(*headers, box=box.SIMPLE_HEAD)
    counts = Counter((mutant.lessons[0], mutant.kind, v.status) for mutant, v in results)
    for lesson, kind in sorted({(lesson, kind) for lesson, kind, _ in counts}):
        table.add_row(lesson, kind, *(str(counts[lesson, kind, s] or "-") for s in MutantStatus))
    table.add_section()
    total = Counter(verdict.status for _, verdict in results)
    table.add_row("all", str(len(results)), *(str(total[status] or "-") for status in MutantStatus))
    return table
