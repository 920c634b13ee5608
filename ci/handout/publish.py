"""Where handouts go: the course page in two editions, drafts, and sweeps; each swapped in whole."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ci.atomic import replacing
from ci.errors import CourseError, UsageError
from ci.handout import check_table, manifest, provenance
from ci.handout.editions import EDITIONS, STUDENTS, Edition, hidden, workbook
from ci.handout.manifest import ENTRIES, Note
from ci.handout.pool import HandoutPool
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome
from ci.lesson.lesson import LANGUAGES
from ci.plan.gpus import Gpu, Request

EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files in the archive: the same handouts, the same bytes

NOT_VERIFIED = {
    "en": "Not verified. This is a draft: a check of the course failed, and nothing was published.",
    "zh": "未经验证。这是草稿：课程有检查项没有通过，因此没有发布任何讲义。",
}
ON_CPU = {
    "en": "All GPUs were asked for, and this machine has none: what you see ran on the CPU.",
    "zh": "本次运行要求使用全部 GPU，但这台机器没有 GPU：以下结果均在 CPU 上得到。",
}


def notes(request: Request, granted: Sequence[Gpu], handouts: str) -> list[Note]:
    """What each handout must say at its top. Raises UsageError for a bad `--handouts`."""
    if handouts not in ("default", "all"):
        raise UsageError(f"--handouts {handouts}: there are default and all")
    return [ON_CPU] if request.text == "all" and not granted else []


def submit(outcome: Outcome, pool: HandoutPool, *, handouts: str, notes: Sequence[Note]) -> None:
    """Have the handouts of `outcome` set that `publish` will want, if all others are green too."""
    if outcome.green and outcome.notebook:
        if outcome.run.is_default:
            pool.submit(outcome, notes)
        elif handouts == "all":
            pool.submit(outcome, notes, [STUDENTS])


def publish(
    outcomes: Sequence[Outcome],
    order: Sequence[str],
    build: Path,
    pool: HandoutPool,
    *,
    handouts: str = "default",
    notes: Sequence[Note] = (),
    agreed: Sequence[Matrix] = (),
) -> list[Path]:
    """Write what the outcomes deserve below `build`, and return the folders to look at.

    All green: the course page for lessons with their default parameters; else drafts, and the
    course page stays as it is. Other parameters make a sweep's summary, with how its runs
    `agreed`; with `handouts="all"` each of its runs gets handouts too.
    """
    ran = [outcome for outcome in outcomes if not outcome.skipped]
    defaults = [outcome for outcome in ran if outcome.run.is_default]
    others = [outcome for outcome in ran if not outcome.run.is_default]
    green = all(outcome.green for outcome in ran)
    written = []
    if not green:
        marked = [o for o in ran if o.notebook and (o.run.is_default or not o.green)]
        drafts(marked, build / "drafts", pool)
        written.append(build / "drafts")
    elif defaults:
        written += course(defaults, order, build, pool, notes)
        shutil.rmtree(build / "drafts", ignore_errors=True)
    if others:
        every = green and handouts == "all"
        runs(others, build / "sweep", pool, handouts=every, notes=notes, agreed=agreed)
        written.append(build / "sweep")
    return written


def course(
    outcomes: Sequence[Outcome],
    order: Sequence[str],
    build: Path,
    pool: HandoutPool,
    notes: Sequence[Note] = (),
) -> list[Path]:
    """Renew the course page below `build`, in each edition, with new handouts for `outcomes`.

    Lessons of `order`, all of the course, that are not among them are carried over from the page
    that is there, with the date and environment of their own run; so are the handouts of outcomes
    without a notebook, which are `settled`. Returns the folders.
    """
    targets = [build / edition.folder for edition in EDITIONS]
    made = [outcome for outcome in outcomes if outcome.notebook]
    standing = {outcome.run.lesson.name for outcome in outcomes if not outcome.notebook}
    if not made and manifest.is_renewed(build, order, standing, notes):
        return targets
    with contextlib.ExitStack() as both:  # none takes its place before all are complete
        news = [both.enter_context(replacing(target)) for target in targets]
        before = [manifest.lessons(build, edition) for edition in EDITIONS]
        for edition, target, new in zip(EDITIONS, targets, news, strict=True):
            _course(made, standing, order, target, new, edition, notes, pool)
    known = {outcome.run.lesson.name: manifest.key(outcome.key, notes) for outcome in made}
    for edition, kept in zip(EDITIONS, before, strict=True):
        manifest.write(build, edition, {**kept, **known}, notes)
    return targets


def _course(
    outcomes: Sequence[Outcome],
    standing: Collection[str],
    order: Sequence[str],
    target: Path,
    new: Path,
    edition: Edition,
    notes: Sequence[Note],
    pool: HandoutPool,
) -> None:
    """Fill `new`, which is to take the place of `target`."""
    from ci.handout import index

    fresh = {outcome.run.lesson.name: _entry(outcome, edition) for outcome in outcomes}
    carried = _carry_over(target, new, [name for name in order if name not in fresh])
    if gone := [name for name in standing if name not in carried]:
        raise CourseError(f"{target}: {gone[0]} was removed while we looked: run again")
    for outcome in outcomes:
        pool.copy_to(outcome, notes, edition, new)
    found = manifest.renewed({**carried, **fresh}, order, standing)
    index.connect(found, new)
    (new / ENTRIES).write_text(json.dumps(found, indent=1, ensure_ascii=False), "utf-8")
    (new / "index.html").write_text(index.course(found, notes, edition), "utf-8")
    _archive(new, edition)


def drafts(outcomes: Sequence[Outcome], target: Path, pool: HandoutPool) -> None:
    """Leave what was executed in `target`, marked as not verified, for the instructor."""
    runs(outcomes, target, pool, handouts=True, notes=[NOT_VERIFIED])


def runs(
    outcomes: Sequence[Outcome],
    target: Path,
    pool: HandoutPool,
    *,
    handouts: bool,
    notes: Sequence[Note] = (),
    agreed: Sequence[Matrix] = (),
) -> None:
    """Make `target` the summary of runs; with `handouts`, the handouts of each below it."""
    from ci.handout import index

    with replacing(target) as new:
        for outcome in outcomes if handouts else ():
            pool.submit(outcome, notes, [STUDENTS])
        for outcome in outcomes if handouts else ():
            pool.copy_to(outcome, notes, STUDENTS, new / provenance.run_folder(outcome))
        entries = [_entry(outcome) for outcome in outcomes]
        (new / ENTRIES).write_text(json.dumps(entries, indent=1, ensure_ascii=False), "utf-8")
        page = index.sweep(entries, notes, handouts=handouts, agreed=agreed)
        (new / "index.html").write_text(page, "utf-8")


def _carry_over(target: Path, new: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Copy the handouts of lessons that did not run, and return their entries."""
    before = manifest.entries(target) if names else {}
    kept = {name: before[name] for name in names if name in before}
    workbooks = {entry.get("workbook") for entry in kept.values()}
    for path in target.glob("*/*"):
        if path.stem in kept or path.name in workbooks:
            (new / path.parent.name).mkdir(exist_ok=True)
            shutil.copy2(path, new / path.parent.name / path.name)
    return kept


def _archive(folder: Path, edition: Edition) -> None:
    with zipfile.ZipFile(folder / edition.archive, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in (".html", ".pdf", ".ipynb"):
                info = zipfile.ZipInfo(f"{edition.folder}/{path.relative_to(folder)}", EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, path.read_bytes())


def _entry(outcome: Outcome, edition: Edition = STUDENTS) -> dict[str, Any]:
    """A lesson, or a run of a sweep, as the index page of `edition` shows it."""
    from ci.handout import index

    return {
        "name": outcome.run.lesson.name,
        "titles": dict(outcome.run.lesson.titles),
        "abstracts": {code: index.abstract(outcome.run.lesson, code) for code in LANGUAGES},
        "margins": check_table.margins(outcome.results),
        "label": outcome.run.label,
        "folder": str(provenance.run_folder(outcome)),
        "status": outcome.status,
        "reason": "" if outcome.cell in hidden(outcome.run.lesson, edition) else outcome.reason,
        "checks": len(outcome.results),
        "workbook": workbook(outcome.run.lesson, outcome.answers, edition),
        "facts": provenance.provenance(outcome),
    }
