"""`invoke run --watch`: run the lessons again whose files were saved."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import watchfiles

from ci.command_line import printable
from ci.errors import CourseError, UsageError
from ci.handout.pool import HandoutPool
from ci.lesson.lesson import find_lessons, select_lessons
from ci.run import run
from ci.run_plan import Options

DEBOUNCE_MS = 100  # an editor saves in several steps
SUFFIXES = (".swp", "~", ".tmp", ".pyc")


def watch(options: Options, root: Path) -> int:
    """Run the lessons, and those whose files change again until interrupted; the last status.

    The processes that make handouts are kept from one run to the next.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(HandoutPool())
        status = run(options, root, pool)
        print("watching lessons/: save a file to run its lesson; Ctrl-C ends it", flush=True)
        for changes in watchfiles.watch(
            root / "lessons",
            debounce=DEBOUNCE_MS,
            step=DEBOUNCE_MS // 2,
            watch_filter=lambda _, path: not path.endswith(SUFFIXES) and "/." not in path,
            raise_interrupt=False,
        ):
            names = changed_lessons({Path(path) for _, path in changes}, options.lessons, root)
            if names:
                status = _again(replace(options, lessons=",".join(names)), root, pool)
    return status


def _again(options: Options, root: Path, pool: HandoutPool) -> int:
    try:
        return run(options, root, pool)
    except CourseError as error:  # the next save may mend it
        print(printable(str(error)), flush=True)
        return error.status


def changed_lessons(changed: Iterable[Path], selected: str, root: Path) -> list[str]:
    """The selected lessons that changed files belong to; all of them for a file that any may read.

    A lesson's own files are its script and its expected values.
    """
    try:
        lessons = select_lessons(find_lessons(root / "lessons"), selected)
    except (CourseError, UsageError):
        return []
    names = [path.stem for path in lessons]
    folders = (root / "lessons", root / "lessons/expected")
    own = {path.stem for path in changed if path.parent in folders and path.suffix == ".py"}
    is_shared = any(path.parent not in folders or path.suffix != ".py" for path in changed)
    return names if is_shared else [name for name in names if name in own]
