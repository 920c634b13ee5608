"""Mutants: each is the course with one mistake in it.

Operators make them from the cells that a check depends on, from the modules beside the lessons
(rank programs) and from the expected values.
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from modulefinder import ModuleFinder
from pathlib import Path

from nbformat import NotebookNode

from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.prove.operators import Change, changes

ORACLE = "oracle"
TERMS = "terms"  # how functions for `terms=` begin, which can only widen a tolerance
UNCHECKED_TAGS = {"figure", "parameters"}


@dataclass(frozen=True)
class Mutant:
    """One `change` of the `text` of `file`, a path below the lessons' folder.

    `lessons` are the names of the lessons that use the file. `place` is the check of the changed
    cell or the name of the changed function. Only a named mutant has a `check` that must notice it,
    and perhaps the `parameters` that this takes. `equivalent` is the reason, if there is one, why
    nothing has to notice the mutant.
    """

    file: str
    text: str = field(repr=False)
    change: Change
    lessons: tuple[str, ...]
    place: str
    check: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    equivalent: str = ""

    @property
    def is_oracle(self) -> bool:
        """Whether it changes an expected value."""
        return self.file.startswith("expected/")

    @property
    def kind(self) -> str:
        """The kind of mistake, as the table of the results counts it."""
        return ORACLE if self.is_oracle else self.change.kind

    @property
    def line(self) -> int:
        """The line of the file at which the change begins, from 1."""
        return _line(self.text, self.change)

    @property
    def before(self) -> str:
        """The changed lines as they are in the file, without line breaks."""
        return self._lines(self.text[self.change.start : self.change.end])

    @property
    def after(self) -> str:
        """The changed lines with the mistake."""
        return self._lines(self.change.replacement)

    @property
    def mutated_text(self) -> str:
        """The whole text with the mistake."""
        start, end = self.change.start, self.change.end
        return self.text[:start] + self.change.replacement + self.text[end:]

    def _lines(self, changed: str) -> str:
        first = self.text.rfind("\n", 0, self.change.start) + 1
        rest = self.text[self.change.end :].partition("\n")[0]
        return " ".join((self.text[first : self.change.start] + changed + rest).split())

    def __str__(self) -> str:
        place = f" [{self.place}]" if self.place else ""
        return f"lessons/{self.file}:{self.line}{place}: {self.before}  ->  {self.after}"


def generate(lessons: Sequence[Lesson], excluded: Collection[str]) -> Iterator[Mutant]:
    """Every mutant that the operators make of `lessons`, but of no file in `excluded`."""
    for lesson in lessons:
        yield from _mutants(lesson.path, [lesson], _checked_lines(lesson), _printed_lines(lesson))
    imported = {lesson.name: _imported_modules(lesson.path) for lesson in lessons}
    for path in sorted(set().union(*imported.values())):
        users = [lesson for lesson in lessons if path in imported[lesson.name]]
        for mutant in _mutants(path, users, _functions(path)):
            if mutant.file not in excluded:
                yield mutant
    for path, users in _oracle_files(lessons).items():
        functions = _functions(path).items()
        places = {n: p for n, p in functions if not p.lstrip("_").startswith(TERMS)}
        yield from _mutants(path, users, places)


def _oracle_files(lessons: Sequence[Lesson]) -> dict[Path, list[Lesson]]:
    """The files that derive expected values, each with the lessons that use it."""
    users: dict[Path, list[Lesson]] = {}
    for lesson in lessons:
        folder = lesson.path.parent / "expected"
        path = folder / lesson.path.name
        if path.exists():
            text = path.read_text(encoding="utf-8")
            shared = (each for each in sorted(folder.glob("_*.py")) if each.stem in text)
            for each in (path, *shared):
                users.setdefault(each, []).append(lesson)
    return users


def _mutants(
    path: Path,
    lessons: Sequence[Lesson],
    places: Mapping[int, str],
    compared: Collection[int] = (),
) -> Iterator[Mutant]:
    """The mutants of the lines of a file that have a place; what `compared` lines print counts."""
    text, names = path.read_text(encoding="utf-8"), tuple(lesson.name for lesson in lessons)
    file = path.relative_to(lessons[0].path.parent).as_posix()
    for change in changes(text, compared):
        if (line := _line(text, change)) in places:
            yield Mutant(file, text, change, names, places[line])


def _line(text: str, change: Change) -> int:
    return text.count("\n", 0, change.start) + 1


def _functions(path: Path) -> dict[int, str]:
    """Every line of a module, with the name of the function or class that it belongs to."""
    text = path.read_text(encoding="utf-8")
    places = dict.fromkeys(range(1, text.count("\n") + 2), "")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min(part.lineno for part in (node, *node.decorator_list))
            places |= dict.fromkeys(range(first, (node.end_lineno or first) + 1), node.name)
    return places


def _checked_lines(lesson: Lesson) -> dict[int, str]:
    """The lines of a lesson that a check depends on, with the check of their cell."""
    return {line: _name(cell) for cell in _checked_cells(lesson) for line in _lines(cell)}


def _name(cell: NotebookNode) -> str:
    """The name of the check of a cell; empty for a cell without a name."""
    names = (cell.metadata.get(key, "") for key in ("check", "given", "stdout"))
    return next(filter(None, names), "")


def _printed_lines(lesson: Lesson) -> set[int]:
    """The lines of the cells whose printed text is compared."""
    cells = (cell for cell in lesson.notebook.cells if "stdout" in cell.metadata)
    return {line for cell in cells for line in _lines(cell)}


def _lines(cell: NotebookNode) -> range:
    return range(cell.metadata.line, cell.metadata.line + cell.source.count("\n") + 1)


def _checked_cells(lesson: Lesson) -> list[NotebookNode]:
    """The cells with a check, and those that assign or change a name that they need."""
    needed: list[NotebookNode] = []
    names: set[str] = set()
    checked = {check.cell for check in lesson.checks}
    for cell in reversed(lesson.notebook.cells):
        if cell.cell_type == "code" and not UNCHECKED_TAGS & {*cell.metadata.get("tags", [])}:
            changed, used = _names(ast.parse(cell.source))
            if cell.id in checked or changed & names:
                needed.append(cell)
                names |= used
    return needed


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The names that code assigns or changes, and the names that it uses."""
    changed: set[str] = set()
    used: set[str] = set()
    local: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                changed.add(name)
            case ast.alias():
                changed.add((node.asname or node.name).partition(".")[0])
            case ast.comprehension():
                local |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                changed.add(_first_name(node))
            case ast.Expr(value=ast.Call(func=function)):  # x.grad.zero_()
                changed.add(_first_name(function))
    return changed - local, used - local


def _first_name(node: ast.expr) -> str:
    return re.split(r"[.\[]", ast.unparse(node))[0]


def _imported_modules(script: Path) -> set[Path]:
    """The modules beside a script that it imports, and those that they import."""
    finder = ModuleFinder(path=[str(script.parent)])
    finder.run_script(str(script))
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return {Path(file) for file in files if file} - {script}
