"""Oracles: the functions in lessons/expected that derive expected values without torch."""

import ast
import contextlib
import inspect
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ci.errors import CourseError, suggest
from ci.lesson import script
from ci.lesson.expect import Rule
from ci.lesson.lesson import Lesson
from ci.lesson.script import ScriptError

DEADLINE_S = 30.0  # for the import of an oracle file, and for each call
LOADERS = {"__import__", "eval", "exec", "importlib", "runpy", "subprocess", "ctypes"}


@dataclass(frozen=True)
class Oracle:
    """The expected value of one check: a function of lesson parameters and givens."""

    function: Callable[..., Any]
    rule: Rule
    argument_names: tuple[str, ...]
    _values: dict[bytes, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def derivation(self) -> str:
        """How the value is derived: the docstring of the function."""
        return " ".join((inspect.getdoc(self.function) or "").split())

    def value(self, known: Mapping[str, Any]) -> Any:
        """The expected value, computed once from the parameters and givens in `known`.

        The function gets copies; do not modify the result. Raises CourseError if it fails or does
        not finish in time.
        """
        arguments = pickle.dumps({name: known[name] for name in self.argument_names})
        try:
            if arguments not in self._values:
                with _deadline(), _torch_blocked():
                    self._values[arguments] = self.function(**pickle.loads(arguments))
            return self._values[arguments]
        except (Exception, SystemExit) as error:
            raise CourseError(f"its oracle failed: {type(error).__name__}: {error}") from None


def load(lesson: Lesson) -> dict[str, Oracle]:
    """The oracles of a lesson by name: exactly one for each check that shows a value.

    Raises CourseError if one is missing, is not used, imports torch, or has an unknown argument.
    """
    path = lesson.path.parent / "expected" / lesson.path.name
    place = f"{lesson.path.parent.name}/expected/{path.name}"
    try:
        oracles = _import(path) if path.exists() else {}
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
    line = oracle.function.__code__.co_firstlineno
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
        source = path.read_text(encoding="utf-8")
        _reject_imports(script.parse_code(source, 1, "the file"))
    except ValueError as error:  # not UTF-8, or a NUL
        raise ScriptError(f"the file is not plain Python: {error}") from None
    module = ModuleType(f"expected_{path.stem}")
    module.__file__ = str(path)
    try:
        with _deadline(), _torch_blocked():
            # Not by import: bytecode can be stale if a file changes twice within a second.
            exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise ScriptError(f"{type(error).__name__}: {error}") from None
    return {
        name: Oracle(
            function,
            getattr(function, "rule", Rule()),
            tuple(inspect.signature(function).parameters),
        )
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }


def _reject_imports(statements: list[ast.stmt]) -> None:
    """An oracle must not import the library that it judges, directly or through another module."""
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
            known = top in sys.stdlib_module_names or top == "numpy" or module == "ci.lesson.expect"
            if top in LOADERS or not known:
                message = (
                    f"uses {module}: an oracle may import only NumPy, the standard library, and "
                    "`expect` from ci.lesson.expect"
                )
                raise ScriptError(message, node.lineno)


@contextlib.contextmanager
def _torch_blocked() -> Iterator[None]:
    """Make every kind of import of torch raise ImportError in the block."""
    loaded = {name: sys.modules[name] for name in list(sys.modules) if _is_torch(name)}
    for name in loaded:
        del sys.modules[name]
    sys.modules["torch"] = None  # type: ignore[assignment] # the import system's own convention
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_torch(name)]:
            del sys.modules[name]
        sys.modules.update(loaded)


def _is_torch(module: str) -> bool:
    return module.partition(".")[0] == "torch"


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Raise TimeoutError in the block after DEADLINE_S."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"not finished within {DEADLINE_S:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
