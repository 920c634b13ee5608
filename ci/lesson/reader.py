"""Read a lesson's script.

The reader finds every fault that can be found without executing the lesson. So a malformed lesson
fails within a second, with file and line, instead of after minutes.
"""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.errors import CourseError, suggest
from ci.lesson import exercises, languages, parameters, script, titles
from ci.lesson.fault import ScriptError
from ci.lesson.header import section
from ci.lesson.lesson import KERNELSPEC, LANGUAGES, Check, Lesson
from ci.lesson.node import NotebookNode
from ci.lesson.parameters import LONGEST_S, Parameter
from ci.lesson.script import LessonError

CHECK_ATTRIBUTES = ["check", "given", "raises", "stdout"]
INSTALL = re.compile(r"(?m)^\s*[!%]+\s*(?:\S*python\S* -m )?(?:pip3?|conda|mamba|uv)\b.*")
TEXT_ALONE = re.compile(r"""(?s)\s*[rRuU]?(\"\"\"|\'\'\')((?:(?!\1).)*)\1\s*""")
FORBIDDEN_TAGS = {"raises-exception", "skip-execution", "injected-parameters"}


def read(path: Path, *, alone: bool = False) -> Lesson:
    """The lesson in the script at `path`.

    With `alone`, the other lessons may not be here, and no prerequisites are looked up.

    Raises LessonError, with file and line of each fault, if the script is malformed; CourseError
    if it cannot be read at all.
    """
    place = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CourseError(f"{place}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CourseError(f"{place}: the file is not UTF-8 text: save it as UTF-8") from None
    found = _Faults()
    notebook = script.parse(text)
    lesson = _lesson(path, text, notebook, found, alone)
    if lesson is None or found.errors:
        raise LessonError(found.in_file(place), notebook.cells)
    return lesson


class _Faults:
    """The faults of a lesson, collected so that all of them are reported together."""

    def __init__(self) -> None:
        self.errors: list[ScriptError] = []

    def collect(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns, or None if it raises ScriptError."""
        try:
            return function(*arguments)
        except ScriptError as error:
            self.errors.append(error)
            return None

    def in_file(self, place: str) -> list[str]:
        """A line for each fault of this file, once."""
        ordered = sorted(self.errors, key=lambda error: error.line or 0)
        return [*dict.fromkeys(str(error.in_file(place)) for error in ordered)]


def _lesson(
    path: Path, text: str, notebook: NotebookNode, found: _Faults, alone: bool
) -> Lesson | None:
    """The lesson, or None if a fault leaves no lesson; `found` collects all faults."""
    found.errors += [ScriptError(message, line) for line, message in notebook.metadata.faults]
    _identify_cells(notebook)
    for cell in notebook.cells:
        found.collect(_validate_cell, cell)
        found.collect(exercises.validate_tags, cell)
    readable = not found.errors
    checks = [check for cell in notebook.cells if (check := found.collect(_check, cell))]
    extracted = None  # a cell with unknown attributes would be missed in an exercise
    if readable:
        extracted = found.collect(exercises.extract, notebook)
    header = notebook.metadata.lesson
    parameters = found.collect(_parameters, notebook, header)
    limits = found.collect(_limits, header)
    prose = found.collect(languages.declared, header)
    prerequisites = () if alone else found.collect(_prerequisites, path, header)
    if prose and not notebook.metadata.faults:
        found.errors += languages.faults(notebook.cells, prose)
    if extracted is None or None in (parameters, limits, prose, prerequisites):
        return None
    kept = {cell.id for cell in notebook.cells}
    lesson = Lesson(
        path=path,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        notebook=notebook,
        titles={language: titles.title(notebook, language) or path.stem for language in prose},
        checks=tuple(check for check in checks if check.cell in kept),
        exercises=extracted,
        parameters=parameters,
        languages=prose,
        prerequisites=prerequisites,
        **limits,
    )
    found.collect(_reject_duplicates, lesson)
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC))
    return lesson


def _identify_cells(notebook: NotebookNode) -> None:
    """Give each cell an id that stays the same and that translations share."""
    number, previous = 0, None
    for cell in notebook.cells:
        language = cell.metadata.get("lang")
        if (previous, language) != ("en", "zh"):
            number += 1
        cell.id = f"cell-{number}" + (f"-{language}" if language else "")
        previous = language


def _validate_cell(cell: NotebookNode) -> None:
    line, language = cell.metadata.line, cell.metadata.get("lang")
    if language not in (None, *LANGUAGES):
        raise ScriptError(f'lang="{language}": expected "en" or "zh"', line)
    for tag in sorted(FORBIDDEN_TAGS & {*exercises.tags(cell)}):
        instead = "remove it"
        if tag == "raises-exception":
            instead = 'write raises="ValueError" instead, with the error that the cell raises'
        message = f"the tag '{tag}' could hide a fault: {instead}"
        raise ScriptError(message, line)
    if (named := cell.metadata.get("language", "python")) != "python":
        instead = f"remove language=, and write `%%{named}` above its lines, without `# `"
        raise ScriptError(f"a cell in {named} is not executed: {instead}", line)
    if cell.cell_type == "code" and (text := TEXT_ALONE.fullmatch(cell.source)):
        cell.cell_type, cell.source = "markdown", text[2]  # so that faults in it are named too
        raise ScriptError("the cell is only a text: begin it with `# %% [markdown]`", line)
    if cell.cell_type == "code" and (ignored := script.first_ignored_status(cell.source)):
        message = f"{ignored[0]}(…) ignores a failure of its command: write subprocess.run(…, "
        raise ScriptError(f"{message}check=True)", line + ignored[1])
    installs = INSTALL.search(cell.source) if cell.cell_type == "code" else None
    if installs:
        at = line + cell.source[: installs.start()].count("\n")
        message = f"`{installs[0].strip()}` installs packages during the lesson: remove it"
        raise ScriptError(f"{message}, and install them beforehand", at)


def _parameters(notebook: NotebookNode, header: Mapping[str, Any]) -> dict[str, Parameter]:
    cells = [cell for cell in notebook.cells if "parameters" in exercises.tags(cell)]
    if len(cells) > 1:
        raise ScriptError("a second parameters cell: use one", cells[1].metadata.line)
    found = parameters.read(cells[0].source, cells[0].metadata.line) if cells else {}
    rules = section(header, "parameters")
    for name in rules:
        if name not in found:
            hint = suggest(str(name), list(found))
            raise ScriptError(f"header: the lesson has no parameter '{name}'{hint}")
        rule = section(rules, name, ["min", "max", "choices"])
        found[name] = parameters.with_rule(found[name], rule)
    return found


def _prerequisites(path: Path, header: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier lessons that the header names, by their names with or without the number."""
    words = header.get("prerequisites", [])
    if type(words) is not list or not all(type(word) is str for word in words):
        raise ScriptError("header: prerequisites must be a list of lessons, as [tensors, autograd]")
    earlier = {each.stem for each in path.parent.glob("*.py") if each.stem < path.stem}
    names = {name.partition("_")[2]: name for name in sorted(earlier)}
    names |= {name: name for name in earlier}
    for word in words:
        if word not in names:
            message = f"header: prerequisites: no lesson before this one is named '{word}'"
            raise ScriptError(message + suggest(word, list(names)))
    return tuple(sorted({names[word] for word in words}))


def _limits(header: Mapping[str, Any]) -> dict[str, Any]:
    """The remaining fields of a lesson that its header sets."""
    gpus = section(header, "gpus", ["min", "max"])
    least = gpus.get("min", 0)
    most = gpus.get("max", max(1, least) if type(least) is int else 1)
    if not (type(least) is int and type(most) is int and 0 <= least <= most):
        raise ScriptError("header: gpus must be two whole numbers in order, as {min: 0, max: 1}")
    timeout = header.get("timeout")
    if timeout is not None and not (type(timeout) in (int, float) and 0 < timeout <= LONGEST_S):
        raise ScriptError(f"header: timeout must be a number of seconds up to {LONGEST_S:.0f}")
    reason = section(header, "checks", ["none"]).get("none")
    if "checks" in header and not (isinstance(reason, str) and reason.strip()):
        raise ScriptError("header: checks must be {none: why the lesson has no checks}")
    return {
        "min_gpus": least,
        "max_gpus": most,
        "timeout_s": timeout,
        "unchecked_because": reason,
    }


def _check(cell: NotebookNode) -> Check | None:
    """The check that a cell declares, if any."""
    names = {key: cell.metadata[key] for key in CHECK_ATTRIBUTES if key in cell.metadata}
    if not names:
        return None
    line = cell.metadata.line
    for attribute, name in names.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise ScriptError(f"{attribute}={name!r} must be a Python name in quotes", line)
    if "lang" in cell.metadata:
        raise ScriptError("a check is part of both languages: remove lang=", line)
    if cell.cell_type != "code":
        raise ScriptError("only a code cell can have check=, given=, raises= or stdout=", line)
    if {"check", "given"} <= names.keys():
        raise ScriptError("a cell has either check= or given=: remove one of them", line)
    if "stdout" in names:
        return _check_of_printed(cell, names)
    name = names.get("check") or names.get("given") or f"raises_at_line_{line}"
    if "raises" in names:
        return Check(name, "raises", cell.id, line, names["raises"])
    if magic := re.search(r"(?m)^[%!]+\S*", cell.source):
        message = f"the check '{name}' must be plain Python: move `{magic[0]}` to a cell of its own"
        raise ScriptError(message, line + cell.source[: magic.start()].count("\n"))
    statements = script.parse_code(cell.source, line, f"the cell of '{name}'")
    if not _shows_value(statements, cell.source):
        raise ScriptError(f"'{name}' shows no value: end its cell in the expression to check", line)
    return Check(name, "given" if "given" in names else "value", cell.id, line)


def _check_of_printed(cell: NotebookNode, names: Mapping[str, Any]) -> Check:
    line = cell.metadata.line
    if len(names) > 1:
        message = "stdout= is the only check of its cell: move the other to a cell of its own"
        raise ScriptError(message, line)
    return Check(names["stdout"], "stdout", cell.id, line)


def _shows_value(statements: Sequence[ast.stmt], source: str) -> bool:
    """Whether a notebook displays the value of the last expression."""
    match statements[-1:]:
        case [ast.Expr(ast.Constant(None) | ast.Call(ast.Name("print" | "display")))]:
            return False
        case [ast.Expr()]:
            return ";" not in source or not _ends_in_semicolon(source)
    return False


def _ends_in_semicolon(source: str) -> bool:
    """Whether the code ends in a semicolon, which may be followed by a comment."""
    try:
        tokens = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)]
    except (tokenize.TokenError, SyntaxError):
        return True  # code that Python parses and tokenize does not: refuse it
    return [t for t in tokens if t.strip() and not t.startswith("#")][-1:] == [";"]


def _reject_duplicates(lesson: Lesson) -> None:
    if lesson.unchecked_because and lesson.checks:
        check = lesson.checks[0]
        message = f"'{check.name}' is a check, but the header says that there are none: remove one"
        raise ScriptError(message, check.line)
    seen: set[str] = set()
    for check in lesson.checks:
        if check.name in seen:
            raise ScriptError(f"a second check '{check.name}': rename one of them", check.line)
        if check.name in lesson.parameters:
            message = f"'{check.name}' is a parameter and a check: rename one of them"
            raise ScriptError(message, check.line)
        seen.add(check.name)
