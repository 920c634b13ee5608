"""`invoke run --watch`: run the lessons again whose files were saved."""

from collections.abc import Callable, Collection
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import watchfiles

from ci.command_line import printable
from ci.errors import CourseError, MachineError, UsageError
from ci.execute.local import LocalExecutor
from ci.execute.servers import Servers
from ci.handout.pool import HandoutPool
from ci.lesson.lesson import find_lessons, select_lessons
from ci.run.plan import Options
from ci.run.run import run

DEBOUNCE_MS = 100  # an editor saves in several steps
WAKE_MS = 200
IGNORED = (".swp", "~", ".tmp", ".pyc", "__pycache__", "/.")
WATCHING = "watching lessons/: save a file to run its lesson; Ctrl-C ends it"


def watch(options: Options, root: Path) -> int:
    """Run the lessons, and those whose files change again until Ctrl-C; the status of the last run.

    Fork servers and the processes that make handouts are kept from one run to the next.
    """
    lessons = root / "lessons"
    if not lessons.is_dir():
        raise CourseError(f"{lessons}: no such folder: invoke new 01_mean writes a first lesson")
    saves = watchfiles.watch(
        lessons,
        debounce=DEBOUNCE_MS,
        step=DEBOUNCE_MS // 2,
        rust_timeout=WAKE_MS,
        yield_on_timeout=True,
        watch_filter=lambda _, path: not _is_ignored(path.removeprefix(str(lessons))),
    )
    next(saves)  # from here on, saved files are noted
    with HandoutPool() as pool, ExitStack() as stack:
        servers: Servers | None = None
        with suppress(MachineError):  # torch is not installed here
            servers = stack.enter_context(closing(Servers(LocalExecutor())))

        def run_once(options: Options) -> int:
            return run(options, root, pool, servers)

        status = _first(options, run_once)
        again = replace(options, fresh=False, failed=False, html_first=True)
        try:
            print(WATCHING, flush=True)
            for changes in saves:
                changed = {Path(path) for _, path in changes}
                if changed and (ended := _again(changed, again, root, run_once)) is not None:
                    status = ended
                    print(WATCHING, flush=True)
        except KeyboardInterrupt as interrupt:
            if str(interrupt):  # of a run
                raise
    print(f"no longer watching; the last run ended with status {status}", flush=True)
    return status


def _is_ignored(path: str) -> bool:
    return any(part in path for part in IGNORED)


def _first(options: Options, run_once: Callable[[Options], int]) -> int:
    try:
        return run_once(options)
    except UsageError:  # no save can mend it
        raise
    except CourseError as error:
        return _report(error)


def _again(
    changed: Collection[Path], options: Options, root: Path, run_once: Callable[[Options], int]
) -> int | None:
    """Run the lessons that changed files belong to; None where there are none."""
    try:
        names = changed_lessons(changed, options.lessons, root)
        return run_once(replace(options, lessons=",".join(names))) if names else None
    except CourseError as error:
        return _report(error)


def _report(error: CourseError) -> int:
    """Print a fault that the next save may mend."""
    print(printable(str(error)), flush=True)
    return error.status


def changed_lessons(changed: Collection[Path], selected: str, root: Path) -> list[str]:
    """The selected lessons that changed files belong to; all of them for a file that any may read.

    A lesson's own files are its script and its expected values.
    """
    names = [path.stem for path in select_lessons(find_lessons(root / "lessons"), selected)]
    folders = (root / "lessons", root / "lessons/expected")
    own = {path.stem for path in changed if path.parent in folders and path.suffix == ".py"}
    is_shared = any(path.parent not in folders or path.suffix != ".py" for path in changed)
    return names if is_shared else [name for name in names if name in own]
