"""Read a lesson's script.

Reading finds every fault that can be found without running the lesson, so that a malformed lesson
fails in a second, by name and line, and not after minutes.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from nbformat import NotebookNode, ValidationError

from ci.errors import CourseError, suggest
from ci.lesson import exercises, parameters, script
from ci.lesson.lesson import CELL_ATTRIBUTES, KERNELSPEC, LANGUAGES, Check, Lesson
from ci.lesson.parameters import LONGEST_S, Parameter

HEADER_WORDS = ["gpus", "parameters", "timeout", "checks"]
REFUSED_TAGS = {"raises-exception", "skip-execution", "injected-parameters"}


def read(path: Path, parse: Callable[[str], NotebookNode] = script.parse) -> Lesson:
    """Read a lesson script. Raises CourseError, with file and line, for whatever is malformed."""
    place = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        notebook = parse(text)
    except OSError as error:
        raise CourseError(f"{place}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CourseError(f"{place}: is not UTF-8 text") from None
    except ValidationError as error:
        raise CourseError(f"{place}: what a cell says of itself: {error.message}") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise CourseError(f"{place}:{line}: the header is not YAML: {problem}") from None
    _name_cells(notebook, text, place)
    blanks = exercises.take(notebook, place)
    header = _header(notebook, place)
    lesson = Lesson(
        path=path,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        notebook=notebook,
        titles={language: _title(notebook, language) or path.stem for language in LANGUAGES},
        checks=tuple(_checks(notebook, place)),
        exercises=blanks,
        parameters=_parameters(notebook, header, place),
        **_rest_of_header(header, place),
    )
    _refuse_doubles(lesson, place)
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC))
    return lesson


def _header(notebook: NotebookNode, place: str) -> Mapping[str, Any]:
    """What the header says below `jupyter:` and `lesson:`."""
    first = notebook.cells[0] if notebook.cells else NotebookNode(cell_type="", source="")
    if first.cell_type == "raw" and any(word in first.source for word in ("jupyter", "lesson")):
        raise CourseError(f"{place}:1: the header must stand below `# jupyter:`, indented")
    header: Mapping[str, Any] = notebook.metadata.get("lesson", {})
    return header


def _name_cells(notebook: NotebookNode, text: str, place: str) -> None:
    """Give each cell its line, and an id that is the same at each read and in both languages."""
    lines = text.splitlines()
    after, number, before = 0, 0, None
    for cell in notebook.cells:
        at = _line_of(cell, lines, after)
        after = at + len(cell.source.splitlines())
        cell.metadata["line"] = at + 1
        language = cell.metadata.get("lang")
        if language not in (None, *LANGUAGES):
            raise CourseError(f'{place}:{at + 1}: lang="{language}": there are en and zh')
        if not (language == "zh" and before == "en"):
            number += 1
        cell.id = f"cell-{number}" + (f"-{language}" if language else "")
        for word in cell.metadata.keys() - {*CELL_ATTRIBUTES, "line"}:
            hint = suggest(word, CELL_ATTRIBUTES)
            if "did you mean" in hint:
                raise CourseError(f"{place}:{at + 1}: unknown cell attribute '{word}'{hint}")
        for tag in REFUSED_TAGS & {*cell.metadata.get("tags", [])}:
            raise CourseError(f"{place}:{at + 1}: the tag '{tag}' would hide what happens here")
        before = language


def _line_of(cell: NotebookNode, lines: list[str], start: int) -> int:
    """The line (from 0) of a cell: where its first line of source stands, from `start` on."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    for number in range(start, len(lines)):
        bare = lines[number].removeprefix("# ") if cell.cell_type != "code" else lines[number]
        if first and bare == first:
            return number
    return start


def _title(notebook: NotebookNode, language: str) -> str | None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.metadata.get("lang", language) == language:
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return str(line[2:].strip())
    return None


def _parameters(
    notebook: NotebookNode, header: Mapping[str, Any], place: str
) -> dict[str, Parameter]:
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) > 1:
        raise CourseError(f"{place}:{cells[1].metadata.line}: a second parameters cell; keep one")
    declared = parameters.read(cells[0].source, place, cells[0].metadata.line) if cells else {}
    for name, rule in _section(header, "parameters", place).items():
        if name not in declared:
            hint = suggest(str(name), list(declared))
            raise CourseError(f"{place}: header: the lesson has no parameter '{name}'{hint}")
        if not isinstance(rule, Mapping):
            raise CourseError(f"{place}: header: {name} wants {{min: 1, max: 2}}")
        declared[name] = parameters.with_rule(declared[name], rule, place)
    return declared


def _rest_of_header(header: Mapping[str, Any], place: str) -> dict[str, Any]:
    _known(header, HEADER_WORDS, f"{place}: header")
    gpus = _known(_section(header, "gpus", place), ["min", "max"], f"{place}: header: gpus")
    least = gpus.get("min", 0)
    most = gpus.get("max", max(1, least) if type(least) is int else 1)
    if not (type(least) is int and type(most) is int and 0 <= least <= most):
        raise CourseError(f"{place}: header: gpus wants {{min: 0, max: 1}}, whole and in order")
    timeout = header.get("timeout")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST_S):
        raise CourseError(f"{place}: header: timeout wants a number of seconds")
    checks = _known(_section(header, "checks", place), ["none"], f"{place}: header: checks")
    return {
        "min_gpus": least,
        "max_gpus": most,
        "timeout_s": timeout,
        "unchecked_because": checks.get("none"),
    }


def _section(header: Any, word: str, place: str) -> Mapping[str, Any]:
    section = header.get(word, {}) if isinstance(header, Mapping) else None
    if not isinstance(section, Mapping):
        raise CourseError(f"{place}: header: '{word}' wants `name: value` pairs")
    return section


def _known(section: Mapping[str, Any], words: list[str], place: str) -> Mapping[str, Any]:
    for word in section:
        if word not in words:
            raise CourseError(f"{place}: unknown word '{word}'{suggest(str(word), words)}")
    return section


def _checks(notebook: NotebookNode, place: str) -> Iterator[Check]:
    for cell in notebook.cells:
        given = {
            word: cell.metadata[word] for word in CELL_ATTRIBUTES[1:4] if word in cell.metadata
        }
        if not given:
            continue
        line = cell.metadata.line
        for word, value in given.items():
            if not (isinstance(value, str) and value.isidentifier()):
                raise CourseError(f"{place}:{line}: {word}={value!r} must be a name, in quotes")
        if "lang" in cell.metadata:
            raise CourseError(f"{place}:{line}: a check stands in both handouts: no lang= here")
        if cell.cell_type != "code" or {"check", "given"} <= given.keys():
            raise CourseError(f"{place}:{line}: a code cell is a check or a given, one of them")
        raises = given.get("raises", "")
        name = given.get("check") or given.get("given") or f"raises_at_line_{line}"
        kind: Literal["value", "given", "raises"] = (
            "raises" if raises else "given" if "given" in given else "value"
        )
        if kind != "raises":
            _refuse_silence(cell, name, place)
        yield Check(name, kind, cell.id, line, raises)


def _refuse_silence(cell: NotebookNode, name: str, place: str) -> None:
    """A cell whose value is to be read must end in an expression that the notebook displays."""
    last = [None, *exercises.parse(cell, name, place).body][-1]
    silent = (
        not isinstance(last, ast.Expr)
        or (";" in cell.source and _ends_in_semicolon(cell.source))
        or (isinstance(last.value, ast.Constant) and last.value.value is None)
        or (
            isinstance(last.value, ast.Call)
            and ast.unparse(last.value.func) in {"print", "display"}
        )
    )
    if silent:
        raise CourseError(
            f"{place}:{cell.metadata.line}: '{name}' shows nothing: "
            "its cell must end in the expression to be read"
        )


def _ends_in_semicolon(source: str) -> bool:
    """Whether IPython would keep the value to itself; a comment may follow."""
    tokens = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)]
    return [t for t in tokens if t.strip() and not t.startswith("#")][-1:] == [";"]


def _refuse_doubles(lesson: Lesson, place: str) -> None:
    seen: set[str] = set()
    for check in lesson.checks:
        if check.name in seen:
            raise CourseError(f"{place}:{check.line}: a second check '{check.name}'")
        if check.name in lesson.parameters:
            raise CourseError(f"{place}:{check.line}: '{check.name}' is a parameter and a check")
        seen.add(check.name)
