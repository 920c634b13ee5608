"""Oracles: the functions in lessons/expected that derive expected values without torch."""

import ast
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ci.errors import CourseError, suggest
from ci.lesson import script
from ci.lesson.expect import Rule
from ci.lesson.lesson import Lesson
from ci.lesson.oracle_process import OracleProcess
from ci.lesson.script import ScriptError
from ci.lesson.value import Comparable, expected_value, with_scale

DEADLINE_S = 30.0  # for the import of an oracle file, and for each call
LOADERS = {"__import__", "eval", "exec", "importlib", "runpy", "subprocess", "ctypes"}


@dataclass(frozen=True)
class Facts:
    """A function of an oracle file: its derivation is its docstring, in one line."""

    name: str
    rule: Rule
    argument_names: tuple[str, ...]
    derivation: str
    line: int


@dataclass(frozen=True)
class Oracle(Facts):
    """The expected value of one check: a function of lesson parameters and givens."""

    process: OracleProcess = field(compare=False, repr=False)
    _values: dict[bytes, Comparable] = field(default_factory=dict, compare=False, repr=False)

    def value(self, known: Mapping[str, Any]) -> Comparable:
        """The expected value, computed once from the parameters and givens in `known`.

        Raises CourseError if the function fails, does not finish in time, or returns a value that
        no shown value can equal.
        """
        arguments = pickle.dumps({name: known[name] for name in self.argument_names})
        if arguments not in self._values:
            try:
                self._values[arguments] = self.process.call(self.name, arguments, DEADLINE_S)
            except CourseError as error:
                raise CourseError(f"its oracle failed: {error}") from None
        return self._values[arguments]


def load(lesson: Lesson) -> dict[str, Oracle]:
    """The oracles of a lesson by name: exactly one for each check that shows a value.

    Raises CourseError if one is missing, is not used, imports torch, or has an unknown argument.
    """
    path = lesson.path.parent / "expected" / lesson.path.name
    place = f"{lesson.path.parent.name}/expected/{path.name}"
    try:
        oracles = _import(path) if path.is_file() else {}
        for check in lesson.checks:
            if check.kind != "raises" and check.name not in oracles:
                raise CourseError(
                    f"{lesson.location(check.cell)}: {check.kind} '{check.name}' has no oracle: "
                    f"define a function of that name in {place}"
                )
        for name, oracle in oracles.items():
            _validate(name, oracle, lesson)
    except ScriptError as error:
        raise error.in_file(place) from None
    return oracles


def _validate(name: str, oracle: Oracle, lesson: Lesson) -> None:
    line = oracle.line
    givens = {check.name for check in lesson.checks if check.kind == "given"}
    known = {*lesson.parameters, *givens}
    if name not in {check.name for check in lesson.checks if check.kind != "raises"}:
        raise ScriptError(f"'{name}' is not a check of {lesson.name}: rename or remove it", line)
    for argument in oracle.argument_names:
        if argument in givens and name in {exercise.name for exercise in lesson.exercises}:
            message = f"{name}({argument}): the oracle of an exercise cannot have a given"
            raise ScriptError(f"{message}, because students' exercises have none", line)
        if argument not in known:
            message = f"{name}({argument}): not a parameter or given of the lesson"
            raise ScriptError(message + suggest(argument, sorted(known)), line)
    if not oracle.derivation:
        raise ScriptError(f"'{name}' has no docstring: derive the expected value in it", line)


def _import(path: Path) -> dict[str, Oracle]:
    """The public functions of an oracle file."""
    try:
        _reject_imports(path)
    except (ValueError, RecursionError, MemoryError) as error:  # not UTF-8, a NUL, too nested
        raise ScriptError(f"the file is not plain Python: {error}") from None
    process = OracleProcess(path, _load)
    try:
        found = process.facts(DEADLINE_S)
    except CourseError as error:
        raise ScriptError(str(error)) from None
    return {facts.name: Oracle(**vars(facts), process=process) for facts in found}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")  # a BOM is no code


def _load(path: Path) -> tuple[list[Facts], Callable[[str, dict[str, Any]], Comparable]]:
    """The functions of an oracle file, and a function that calls them. For the oracle's process."""
    module = ModuleType(f"expected_{path.stem}")
    module.__file__ = str(path)
    sys.path.insert(0, str(path.parent))  # for the files that it shares with other oracles
    # Not by import: bytecode can be stale if a file changes twice within a second. With docstrings
    # and assertions, with any options of the interpreter.
    exec(compile(_read(path), str(path), "exec", dont_inherit=True, optimize=0), vars(module))
    functions = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }

    def answer(name: str, arguments: dict[str, Any]) -> Comparable:
        value, terms = (
            expected_value(functions[name](**arguments)),
            getattr(functions[name], "terms", None),
        )
        if terms is None:
            return value
        wanted = inspect.signature(terms).parameters
        known = {argument: arguments[argument] for argument in wanted if argument in arguments}
        return with_scale(value, expected_value(terms(**known)))

    return [_facts(name, function) for name, function in functions.items()], answer


def _facts(name: str, function: FunctionType) -> Facts:
    rule = getattr(function, "rule", Rule())
    if type(rule) is not Rule:
        raise TypeError(f"'{name}'.rule is set by @expect(…) only")
    return Facts(
        name,
        replace(rule),  # validates its fields again, which an oracle can have changed
        tuple(inspect.signature(function).parameters),
        " ".join((inspect.getdoc(function) or "").split()),
        function.__code__.co_firstlineno,
    )


def _reject_imports(path: Path) -> None:
    """An oracle must not import the library that it judges, directly or through another module."""
    statements = script.parse_code(_read(path), 1, "the file")
    for node in ast.walk(ast.Module(statements, [])):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Name) and node.id in LOADERS:
            modules = [node.id]
        else:
            continue
        for module in modules:
            top = module.split(".")[0]
            if helper := _helper(path, top):
                _check_helper(helper)
                continue
            known = top in sys.stdlib_module_names or top == "numpy" or module == "ci.lesson.expect"
            if top in LOADERS or not known:
                message = (
                    f"uses {module}: an oracle may import only NumPy, the standard library, "
                    "`expect` from ci.lesson.expect, and files beside it with names like _shared.py"
                )
                raise ScriptError(message, node.lineno)


def _helper(path: Path, module: str) -> Path | None:
    """The file beside an oracle file that it imports under this name, such as `_shared.py`."""
    helper = path.with_name(f"{module}.py")
    return helper if module.startswith("_") and helper.is_file() else None


def _check_helper(path: Path) -> None:
    try:
        _reject_imports(path)
    except ScriptError as error:
        raise error.in_file(f"{path.parents[1].name}/expected/{path.name}") from None
