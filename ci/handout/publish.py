"""Where handouts go: the course page in two editions, drafts, and sweeps; each replaced whole."""

import contextlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import CourseError, UsageError
from ci.handout import manifest
from ci.handout.editions import EDITIONS, STUDENTS, Edition, Note, run_folder
from ci.handout.manifest import ENTRIES
from ci.handout.pool import HandoutPool
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome
from ci.machine import atomic
from ci.machine.atomic import replacing, write_json
from ci.plan.gpus import Gpu, Request

EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files in the archive: the same handouts, the same bytes

NOT_VERIFIED = {
    "en": "Not verified: this is a draft, and nothing was published.",
    "zh": "未经验证：这是草稿，没有发布任何讲义。",
}
ON_CPU = {
    "en": "All GPUs were requested, but this machine has none: these results are from the CPU.",
    "zh": "本次运行要求使用全部 GPU，但这台机器没有 GPU：以下结果均在 CPU 上得到。",
}


def notes(request: Request, granted: Sequence[Gpu], handouts: str) -> list[Note]:
    """The notes at the top of each handout. Raises UsageError for a bad `--handouts`."""
    if handouts not in ("default", "all", "none"):
        raise UsageError(f"--handouts {handouts}: expected default, all or none")
    return [ON_CPU] if request.text == "all" and not granted else []


def submit(outcome: Outcome, pool: HandoutPool, *, handouts: str, notes: Sequence[Note]) -> None:
    """Start making the handouts of `outcome` that `publish` needs if the other runs are green."""
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
    html_only: bool = False,
) -> list[Path]:
    """Write the pages of a plan below `build`, and return their folders.

    If all runs are green, lessons with their default parameters go to the course page; else they
    become drafts, and the course page stays. Runs with other parameters get a summary, which says
    how closely they `agreed`; with `handouts="all"` each of them gets handouts too. With
    `html_only`, the other formats of a lesson's handouts stay as they were, until the next call.
    """
    executed = [outcome for outcome in outcomes if not outcome.skipped]
    defaults = [outcome for outcome in executed if outcome.run.is_default]
    swept = [outcome for outcome in executed if not outcome.run.is_default]
    green = all(outcome.green for outcome in executed)
    folders = []
    if not green:
        drafts = [o for o in executed if o.notebook and (o.run.is_default or not o.green)]
        summarize(
            drafts,
            build / "drafts",
            pool,
            handouts=True,
            notes=[NOT_VERIFIED],
            html_only=html_only,
        )
        folders.append(build / "drafts")
    elif defaults:
        folders += publish_course(defaults, order, build, pool, notes, html_only=html_only)
        atomic.remove(build / "drafts")
    if swept:
        every = green and handouts == "all"
        summarize(swept, build / "sweep", pool, handouts=every, notes=notes, agreed=agreed)
        folders.append(build / "sweep")
    return folders


def publish_course(
    outcomes: Sequence[Outcome],
    order: Sequence[str],
    build: Path,
    pool: HandoutPool,
    notes: Sequence[Note] = (),
    *,
    html_only: bool = False,
) -> list[Path]:
    """Replace the course page below `build`, in each edition, with handouts for `outcomes`.

    `order` has all lessons of the course. The handouts of the others are carried over from the
    existing page, with the date and environment of their own runs; so are the handouts of outcomes
    without a notebook, which are `settled`. With `html_only`, only HTML is renewed: the manifest
    has the lesson as missing, until it is published again. Returns the folders.
    """
    folders = [build / edition.folder for edition in EDITIONS]
    new = {outcome.run.lesson.name: outcome for outcome in outcomes if outcome.notebook}
    unchanged = {outcome.run.lesson.name for outcome in outcomes if not outcome.notebook}
    if not new and manifest.is_renewed(build, order, unchanged, notes):
        return folders
    from ci.handout import index  # slow to import

    with contextlib.ExitStack() as both:  # no page is replaced before both are complete
        pages = [both.enter_context(replacing(folder)) for folder in folders]
        before = [manifest.lessons(build, edition) for edition in EDITIONS]
        for edition, folder, page in zip(EDITIONS, folders, pages, strict=True):
            kept = order if html_only else [name for name in order if name not in new]
            carried = _carry_over(folder, page, kept)
            if gone := sorted(unchanged - carried.keys()):
                raise CourseError(f"{folder}: {gone[0]} was removed during this run: run again")
            for outcome in new.values():
                pool.copy_to(page, outcome, notes, edition, html_only=html_only)
            made = {name: index.entry(outcome, edition) for name, outcome in new.items()}
            entries = manifest.ordered({**carried, **made}, order, unchanged)
            index.connect(entries, page)
            _write_index(page, entries, index.pages(entries, notes, edition=edition))
            if not html_only:
                _archive(page, edition)
            elif (folder / edition.archive).exists():
                shutil.copy2(folder / edition.archive, page)
    keys = {name: manifest.key(outcome.key, notes) for name, outcome in new.items()}
    for edition, known in zip(EDITIONS, before, strict=True):
        others = {name: key for name, key in known.items() if name not in new}
        manifest.write(build, edition, others if html_only else {**known, **keys}, notes)
    return folders


def summarize(
    outcomes: Sequence[Outcome],
    target: Path,
    pool: HandoutPool,
    *,
    handouts: bool,
    notes: Sequence[Note] = (),
    agreed: Sequence[Matrix] = (),
    html_only: bool = False,
) -> None:
    """Replace `target` with a summary of runs; with `handouts`, the handouts of each below it."""
    from ci.handout import index  # slow to import

    with replacing(target) as page:
        made = outcomes if handouts else ()
        for outcome in made:
            pool.submit(outcome, notes, [STUDENTS])
        for outcome in made:
            folder = page / run_folder(outcome)
            pool.copy_to(folder, outcome, notes, STUDENTS, html_only=html_only)
        entries = [index.entry(outcome) for outcome in outcomes]
        pages = index.pages(entries, notes, sweep=True, handouts=handouts, agreed=agreed)
        _write_index(page, entries, pages)


def _carry_over(old: Path, page: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Copy the handouts of lessons that did not run from the old page; their entries."""
    entries = manifest.entries(old) if names else {}
    kept = {name: entries[name] for name in names if name in entries}
    workbooks = {entry.get("workbook") for entry in kept.values()}
    for path in old.glob("*/*"):
        if path.stem in kept or path.name in workbooks:
            (page / path.parent.name).mkdir(exist_ok=True)
            shutil.copy2(path, page / path.parent.name / path.name)
    return kept


def _write_index(
    page: Path, entries: Sequence[Mapping[str, Any]], pages: Mapping[str, str]
) -> None:
    write_json(page / ENTRIES, entries)
    for name, html in pages.items():
        (page / name).write_text(html, "utf-8")


def _archive(page: Path, edition: Edition) -> None:
    with zipfile.ZipFile(page / edition.archive, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(page.rglob("*")):
            if path.is_file() and path.suffix in (".html", ".pdf", ".ipynb"):
                info = zipfile.ZipInfo(f"{edition.folder}/{path.relative_to(page)}", EPOCH)
                if path.suffix != ".pdf":  # they are compressed
                    info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, path.read_bytes())
