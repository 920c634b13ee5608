"""Lessons as they were parsed before: parsing takes most of the time of reading a lesson."""

import functools
import json
import sys
from pathlib import Path

from ci import atomic
from ci.errors import MachineError
from ci.lesson import reader, script
from ci.lesson.lesson import Lesson
from ci.lesson.node import NotebookNode, copied
from ci.plan import keys

LESSONS = "lessons"  # folder below build/records/
PARSER = ("script", "marks", "header", "fault")  # modules of ci/lesson/ that parse a script


def read(path: Path, build: Path) -> Lesson:
    """The lesson at `path`, as `reader.read` returns it, parsed again only where it has changed."""
    cached = build / "records" / LESSONS / f"{path.stem}.json"

    def parse(text: str) -> NotebookNode:
        key, known = keys.digest(text, _parser()), atomic.read_json(cached)
        if known.get("digest") == keys.digest(key, known.get("notebook")):
            notebook: NotebookNode = copied(known["notebook"])
            return notebook
        notebook = script.parse(text)
        facts = {"digest": keys.digest(key, notebook), "notebook": notebook}
        try:
            atomic.write(cached, json.dumps(facts))
        except OSError as error:  # of build/, and not of the lesson
            raise MachineError(
                f"{build}: {error.strerror}: make it writable, with room on its disk"
            ) from None
        return notebook

    return reader.read(path, parse)


@functools.cache
def _parser() -> str:
    return keys.digest(
        keys.packages(tuple(sys.path)), keys.code([f"lesson/{name}.py" for name in PARSER])
    )
