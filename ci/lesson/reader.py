"""Read a lesson's script.

The reader finds every fault that can be found without executing the lesson. So a malformed lesson
fails within a second, with file and line, instead of after minutes.
"""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode, ValidationError

from ci.errors import CourseError, closest, suggest
from ci.lesson import exercises, parameters, script
from ci.lesson.lesson import CELL_ATTRIBUTES, KERNELSPEC, LANGUAGES, Check, Lesson
from ci.lesson.parameters import LONGEST_S, Parameter
from ci.lesson.script import ScriptError

HEADER_KEYS = ["gpus", "parameters", "timeout", "checks"]
CHECK_ATTRIBUTES = ["check", "given", "raises"]
FORBIDDEN_TAGS = {"raises-exception", "skip-execution", "injected-parameters"}


def read(path: Path, parse: Callable[[str], NotebookNode] = script.parse) -> Lesson:
    """The lesson in the script at `path`; `parse` makes a notebook of its text.

    Raises CourseError, with file and line, if the script is malformed.
    """
    place = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _lesson(path, text, _parse(text, parse))
    except OSError as error:
        raise CourseError(f"{place}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CourseError(f"{place}: the file is not UTF-8 text: save it as UTF-8") from None
    except ScriptError as error:
        raise error.in_file(place) from None


def _parse(text: str, parse: Callable[[str], NotebookNode]) -> NotebookNode:
    try:
        return parse(text)
    except ValidationError as error:
        raise ScriptError(f"a cell's attributes are malformed: {error.message}") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ScriptError(f"the header is not valid YAML: {problem}", line) from None


def _lesson(path: Path, text: str, notebook: NotebookNode) -> Lesson:
    _identify_cells(notebook, text)
    for cell in notebook.cells:
        _validate_cell(cell)
    extracted = exercises.extract(notebook)
    header = _header(notebook)
    lesson = Lesson(
        path=path,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        notebook=notebook,
        titles={language: _title(notebook, language) or path.stem for language in LANGUAGES},
        checks=tuple(_checks(notebook)),
        exercises=extracted,
        parameters=_parameters(notebook, header),
        **_limits(header),
    )
    _reject_duplicates(lesson)
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC))
    return lesson


def _identify_cells(notebook: NotebookNode, text: str) -> None:
    """Give each cell its line, and an id that stays the same and that translations share."""
    lines = text.splitlines()
    start, number, previous = 0, 0, None
    for cell in notebook.cells:
        start = _find(cell, lines, start)
        cell.metadata["line"] = start + 1
        start += len(cell.source.splitlines())
        language = cell.metadata.get("lang")
        if (previous, language) != ("en", "zh"):
            number += 1
        cell.id = f"cell-{number}" + (f"-{language}" if language else "")
        previous = language


def _find(cell: NotebookNode, lines: Sequence[str], start: int) -> int:
    """The index in `lines`, from `start` on, of a cell's first line that is not blank."""
    first = next((line for line in cell.source.splitlines() if line.strip()), None)
    prefix = "" if cell.cell_type == "code" else "# "
    for number in range(start, len(lines)):
        if lines[number].removeprefix(prefix) == first:
            return number
    return start


def _validate_cell(cell: NotebookNode) -> None:
    line, language = cell.metadata.line, cell.metadata.get("lang")
    if language not in (None, *LANGUAGES):
        raise ScriptError(f'lang="{language}": expected "en" or "zh"', line)
    for attribute in cell.metadata.keys() - {*CELL_ATTRIBUTES, "line"}:
        if match := closest(attribute, CELL_ATTRIBUTES):
            raise ScriptError(f"unknown attribute '{attribute}'; did you mean '{match}'?", line)
    for tag in FORBIDDEN_TAGS & {*exercises.tags(cell)}:
        message = f"the tag '{tag}' could hide a fault: remove it (raises= declares an error)"
        raise ScriptError(message, line)


def _title(notebook: NotebookNode, language: str) -> str | None:
    for cell in notebook.cells:
        heading = re.search(r"(?m)^# (.*)", cell.source)
        is_text = cell.cell_type == "markdown"
        if is_text and heading and cell.metadata.get("lang", language) == language:
            return heading[1].strip()
    return None


def _header(notebook: NotebookNode) -> Mapping[str, Any]:
    """The part of the header below `jupyter:` and `lesson:`."""
    for cell in notebook.cells[:1]:
        if cell.cell_type == "raw" and re.search("jupyter|lesson", cell.source):
            raise ScriptError("the header must be indented below `# jupyter:`", 1)
    return _section({"lesson": notebook.metadata.get("lesson", {})}, "lesson", HEADER_KEYS)


def _section(
    mapping: Mapping[str, Any], name: str, keys: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """The section `name` of the header, which may only have these keys, or any."""
    section = mapping.get(name, {})
    if not isinstance(section, Mapping):
        raise ScriptError(f"header: '{name}' must have `key: value` pairs")
    for key in section:
        if keys and key not in keys:
            raise ScriptError(f"header: {name}: unknown key '{key}'{suggest(str(key), keys)}")
    return section


def _parameters(notebook: NotebookNode, header: Mapping[str, Any]) -> dict[str, Parameter]:
    cells = [cell for cell in notebook.cells if "parameters" in exercises.tags(cell)]
    if len(cells) > 1:
        raise ScriptError("a second parameters cell: use one", cells[1].metadata.line)
    found = parameters.read(cells[0].source, cells[0].metadata.line) if cells else {}
    section = _section(header, "parameters")
    for name in section:
        if name not in found:
            hint = suggest(str(name), list(found))
            raise ScriptError(f"header: the lesson has no parameter '{name}'{hint}")
        rule = _section(section, name, ["min", "max", "choices"])
        found[name] = parameters.with_rule(found[name], rule)
    return found


def _limits(header: Mapping[str, Any]) -> dict[str, Any]:
    """The remaining fields of a lesson that its header sets."""
    gpus = _section(header, "gpus", ["min", "max"])
    least = gpus.get("min", 0)
    most = gpus.get("max", max(1, least) if type(least) is int else 1)
    if not (type(least) is int and type(most) is int and 0 <= least <= most):
        raise ScriptError("header: gpus must be two whole numbers in order, as {min: 0, max: 1}")
    timeout = header.get("timeout")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST_S):
        raise ScriptError(f"header: timeout must be a number of seconds up to {LONGEST_S:.0f}")
    return {
        "min_gpus": least,
        "max_gpus": most,
        "timeout_s": timeout,
        "unchecked_because": _section(header, "checks", ["none"]).get("none"),
    }


def _checks(notebook: NotebookNode) -> Iterator[Check]:
    for cell in notebook.cells:
        names = {key: cell.metadata[key] for key in CHECK_ATTRIBUTES if key in cell.metadata}
        if names:
            yield _check(cell, names)


def _check(cell: NotebookNode, names: Mapping[str, Any]) -> Check:
    line = cell.metadata.line
    for attribute, name in names.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise ScriptError(f"{attribute}={name!r} must be a Python name in quotes", line)
    if "lang" in cell.metadata:
        raise ScriptError("a check is part of both languages: remove lang=", line)
    if cell.cell_type != "code":
        raise ScriptError("only a code cell can have check=, given= or raises=", line)
    if {"check", "given"} <= names.keys():
        raise ScriptError("a cell has either check= or given=: remove one of them", line)
    name = names.get("check") or names.get("given") or f"raises_at_line_{line}"
    if "raises" in names:
        return Check(name, "raises", cell.id, line, names["raises"])
    statements = script.parse_code(cell.source, line, f"the cell of '{name}'")
    if not _shows_value(statements, cell.source):
        raise ScriptError(f"'{name}' shows no value: end its cell in the expression to check", line)
    return Check(name, "given" if "given" in names else "value", cell.id, line)


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
    tokens = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)]
    return [t for t in tokens if t.strip() and not t.startswith("#")][-1:] == [";"]


def _reject_duplicates(lesson: Lesson) -> None:
    seen: set[str] = set()
    for check in lesson.checks:
        if check.name in seen:
            raise ScriptError(f"a second check '{check.name}': rename one of them", check.line)
        if check.name in lesson.parameters:
            message = f"'{check.name}' is a parameter and a check: rename one of them"
            raise ScriptError(message, check.line)
        seen.add(check.name)
