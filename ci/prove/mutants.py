"""Mutants: the course with one mistake in it. Here they are made; ci.prove.prove tries them.

Some are named, in a TOML file: mistakes that people make, each with the check that must differ.
The others are made by operators, from the syntax tree of what a check depends on: cells, rank
programs and oracles.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from ci.errors import CourseError, suggest
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.prove.operators import Change, changes, line_starts

NAMED, ORACLE = "named", "oracle"
UNTOLD = {"figure", "parameters"}  # tags of cells of which no check tells anything
ENTRIES = {  # of the TOML file, by table: the keys that an entry must have, and those that it may
    "mutant": ({"lesson", "text", "replacement", "check"}, {"file", "nth", "parameters"}),
    "equivalent": ({"lesson", "place", "text", "reason"}, {"file", "replacement"}),
    "elsewhere": ({"file", "reason"}, set[str]()),
    "again": ({"lesson", "parameters"}, set[str]()),
}


@dataclass(frozen=True)
class Mutant:
    """A mistake: in `file` (a path below the lessons), characters `start` to `end` are replaced.

    `lessons` are those that could notice it. `place` is the check of its cell or the function that
    it is in; `was` and `now` are its lines before and after. A named one has the `check` that must
    differ, and maybe `parameters` to be run with. `equivalent` says why others may go unnoticed.
    """

    lessons: tuple[str, ...]
    file: str
    line: int
    place: str
    kind: str
    start: int
    end: int
    replacement: str
    was: str
    now: str
    check: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    equivalent: str = ""

    def __str__(self) -> str:
        where = f"lessons/{self.file}:{self.line}" + (f" [{self.place}]" if self.place else "")
        return f"{where}: {self.was}  ->  {self.now}"


def named(path: Path, lessons: Sequence[Lesson]) -> list[Mutant]:
    """The mutants that the TOML file `path` names, of these lessons.

    Raises CourseError for a text that is not there, or there more than once without `nth`, and for
    a check that the lesson does not have.
    """
    return [
        _named(entry, lesson, f"{path.name}: mutant {number}")
        for number, entry in enumerate(_entries(path, "mutant"), start=1)
        for lesson in _of(entry, lessons)
    ]


def made(path: Path, lessons: Sequence[Lesson]) -> list[Mutant]:
    """The mutants that the operators make, those declared equivalent in `path` marked as such.

    Files that `path` says are tested elsewhere are left out. Raises CourseError for a declaration
    that fits no mutant.
    """
    left_out = elsewhere(path)
    mutants = [*_of_cells(lessons), *_of_ranks(lessons, left_out), *_of_oracles(lessons)]
    for number, entry in enumerate(_entries(path, "equivalent"), start=1):
        files = [entry.get("file", m.path.name) for m in _of(entry, lessons)]
        same = [i for i, m in enumerate(mutants) if m.file in files and _declares(entry, m)]
        if files and not same:
            raise CourseError(
                f"{path.name}: equivalent {number}: no mutant of lessons/{files[0]} "
                f"[{entry['place']}] is '{entry['text']}': mend the entry, or remove it"
            )
        for i in same:
            mutants[i] = replace(mutants[i], equivalent=entry["reason"])
    return mutants


def _declares(entry: Mapping[str, Any], mutant: Mutant) -> bool:
    """Without a replacement, whatever an operator makes of these lines is meant."""
    key = entry["place"], entry["text"], entry.get("replacement", mutant.now)
    return key == (mutant.place, mutant.was, mutant.now)


def _of(entry: Mapping[str, Any], lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lesson that an entry names by its number, if it is among these."""
    return [lesson for lesson in lessons if lesson.name.partition("_")[0] == entry["lesson"]]


def again(path: Path, lesson: Lesson) -> list[dict[str, Value]]:
    """The parameters with which a lesson is run once more for what its defaults do not notice."""
    return [e["parameters"] for e in _entries(path, "again") if _of(e, [lesson])]


def elsewhere(path: Path) -> dict[str, str]:
    """The files that are not mutated, and what tests them instead."""
    return {entry["file"]: entry["reason"] for entry in _entries(path, "elsewhere")}


def _entries(path: Path, table: str) -> list[dict[str, Any]]:
    """The entries of one table of the TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CourseError(f"{path.name}: {error}") from None
    if unknown := tables.keys() - ENTRIES:
        raise CourseError(f"{path.name}: '{min(unknown)}'{suggest(min(unknown), list(ENTRIES))}")
    entries = tables.get(table, [])
    for number, entry in enumerate(entries, start=1):
        must, may = ENTRIES[table]
        if wrong := must ^ (entry.keys() - may):
            raise CourseError(f"{path.name}: {table} {number}: '{min(wrong)}' missing or unknown")
    return list(entries)


def _named(entry: Mapping[str, Any], lesson: Lesson, place: str) -> Mutant:
    file = entry.get("file", lesson.path.name)
    text, wanted, check = _text(lesson.path.parent / file), entry["text"], entry["check"]
    starts = [found.start() for found in re.finditer(re.escape(wanted), text)]
    nth = entry.get("nth", 1)
    if not 1 <= nth <= len(starts) or (len(starts) > 1 and "nth" not in entry):
        found = f"{len(starts)} times" if starts else "not"
        raise CourseError(f"{place} (check '{check}'): '{wanted}' is {found} in lessons/{file}")
    names = [known.name for known in lesson.checks]
    if check not in names:
        raise CourseError(f"{place}: {lesson.name} has no check '{check}'{suggest(check, names)}")
    start = starts[nth - 1]
    change = Change(start, start + len(wanted), entry["replacement"], NAMED)
    mutant = _mutant((lesson.name,), file, text, change, check)
    return replace(mutant, check=check, parameters=entry.get("parameters", {}))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}") from None


def _mutant(lessons: tuple[str, ...], file: str, text: str, change: Change, place: str) -> Mutant:
    first = text.rfind("\n", 0, change.start) + 1
    last = text.find("\n", change.end)
    tail = text[change.end : last if last >= 0 else None]
    now = text[first : change.start] + change.replacement + tail
    return Mutant(
        lessons=lessons,
        file=file,
        line=text.count("\n", 0, change.start) + 1,
        place=place,
        kind=change.kind,
        start=change.start,
        end=change.end,
        replacement=change.replacement,
        was=" ".join(text[first : last if last >= 0 else None].split()),
        now=" ".join(now.split()),
    )


def _of_cells(lessons: Sequence[Lesson]) -> Iterator[Mutant]:
    for lesson in lessons:
        text = _text(lesson.path)
        starts = line_starts(text)
        for cell in _telling(lesson):
            at = starts[cell.metadata.line - 1]
            place = cell.metadata.get("check") or cell.metadata.get("given") or ""
            for found in changes(cell.source):
                change = replace(found, start=at + found.start, end=at + found.end)
                yield _mutant((lesson.name,), lesson.path.name, text, change, place)


def _telling(lesson: Lesson) -> list[NotebookNode]:
    """The cells that a check depends on: those with one, and what makes the names that they use."""
    chosen: list[NotebookNode] = []
    wanted: set[str] = set()
    for cell in reversed(lesson.notebook.cells):
        if cell.cell_type == "code" and not UNTOLD & {*cell.metadata.get("tags", [])}:
            makes, uses = _names(ast.parse(cell.source))
            if cell.metadata.keys() & {"check", "given", "raises"} or makes & wanted:
                chosen.insert(0, cell)
                wanted |= uses
    return chosen


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The names that code makes or changes, and those that it uses."""
    makes: set[str] = set()
    uses: set[str] = set()
    inner: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (uses if isinstance(node.ctx, ast.Load) else makes).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            makes.add(node.name)
        elif isinstance(node, ast.alias):
            makes.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.comprehension):
            inner |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            makes.add(ast.unparse(node).partition("[")[0].partition(".")[0])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            makes.add(ast.unparse(node.value.func).partition(".")[0])  # x.grad.zero_()
    return makes - inner, uses - inner


def _of_ranks(lessons: Sequence[Lesson], left_out: Mapping[str, str]) -> Iterator[Mutant]:
    """Of the modules that lessons import from their own folder."""
    users: dict[Path, list[str]] = {}
    for lesson in lessons:
        for path in _neighbours(lesson.path):
            users.setdefault(path, []).append(lesson.name)
    for path, names in sorted(users.items()):
        file = path.relative_to(lessons[0].path.parent).as_posix()
        if file not in left_out:
            yield from _of_module(path, file, tuple(names))


def _neighbours(script: Path) -> set[Path]:
    """The modules beside a script that it imports, and those that they import."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        for node in ast.walk(ast.parse(_text(waiting.pop()))):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            elif not isinstance(node, ast.Import):
                continue
            for name in names:
                base = script.parent / name.replace(".", "/")
                for path in (base.with_suffix(".py"), base / "__init__.py"):
                    if path.exists() and path not in found:
                        found.add(path)
                        waiting.append(path)
    return found


def _of_oracles(lessons: Sequence[Lesson]) -> Iterator[Mutant]:
    for lesson in lessons:
        path = lesson.path.parent / "expected" / lesson.path.name
        if path.exists():
            for mutant in _of_module(path, f"expected/{path.name}", (lesson.name,)):
                yield replace(mutant, kind=ORACLE)


def _of_module(path: Path, file: str, lessons: tuple[str, ...]) -> Iterator[Mutant]:
    text = _text(path)
    functions = [
        node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    for change in changes(text):
        line = text.count("\n", 0, change.start) + 1
        around = [
            node.name
            for node in functions
            if min([node, *node.decorator_list], key=lambda n: n.lineno).lineno
            <= line
            <= (node.end_lineno or line)
        ]
        yield _mutant(lessons, file, text, change, "".join(around))
