"""Oracles: the functions in lessons/expected, which derive expected values without torch."""

import ast
import contextlib
import importlib.util
import inspect
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ci.errors import CourseError, suggest
from ci.lesson.expect import Rule
from ci.lesson.lesson import Lesson

DEADLINE_S = 30.0  # for a function that computes a few numbers
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
        """How the value is derived, in the words of the oracle's docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split())

    def value(self, known: Mapping[str, Any]) -> Any:
        """The expected value, computed once from copies of the parameters and givens in `known`.

        Do not modify it. Raises CourseError where the oracle fails or does not end in time.
        """
        arguments = pickle.dumps({name: known[name] for name in self.argument_names})
        try:
            if arguments not in self._values:
                with _deadline(), _torch_blocked():
                    self._values[arguments] = self.function(**pickle.loads(arguments))
            return self._values[arguments]
        except (Exception, SystemExit) as error:
            raise CourseError(f"its oracle: {type(error).__name__}: {error}") from None


def load(lesson: Lesson) -> dict[str, Oracle]:
    """The oracles of a lesson: exactly one for each check that shows a value.

    Raises CourseError where one is missing, unused, imports torch, or wants an unknown name.
    """
    path = lesson.path.parent / "expected" / lesson.path.name
    place = f"{lesson.path.parent.name}/expected/{path.name}"
    oracles = _import(path, place) if path.exists() else {}
    for check in lesson.checks:
        if check.kind != "raises" and check.name not in oracles:
            raise CourseError(
                f"{lesson.location(check.cell)}: {check.kind} '{check.name}' has no function "
                f"of that name in {place}"
            )
    for name, oracle in oracles.items():
        _validate(name, oracle, lesson, place)
    return oracles


def _validate(name: str, oracle: Oracle, lesson: Lesson, place: str) -> None:
    at = f"{place}:{oracle.function.__code__.co_firstlineno}"
    givens = {check.name for check in lesson.checks if check.kind == "given"}
    known = {*lesson.parameters, *givens}
    if name not in {check.name for check in lesson.checks if check.kind != "raises"}:
        raise CourseError(f"{at}: '{name}' is no check of {lesson.name}")
    for word in oracle.argument_names:
        if word in givens and name in {exercise.name for exercise in lesson.exercises}:
            raise CourseError(
                f"{at}: {name}({word}): a given, which students' exercises don't have"
            )
        if word not in known:
            hint = suggest(word, sorted(known))
            raise CourseError(f"{at}: {name}({word}): not a parameter or given of the lesson{hint}")
    if not oracle.derivation:
        raise CourseError(f"{at}: '{name}' has no docstring: how is it derived?")


def _import(path: Path, place: str) -> dict[str, Oracle]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise CourseError(f"{place}:{error.lineno or 1}: not Python: {error.msg}") from None
    except ValueError as error:  # not UTF-8, or a NUL
        raise CourseError(f"{place}: not Python: {error}") from None
    _reject_imports(tree, place)
    spec = importlib.util.spec_from_file_location(f"expected_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        with _deadline(), _torch_blocked():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CourseError(f"{place}: {type(error).__name__}: {error}") from None
    return {
        name: Oracle(
            found, getattr(found, "rule", Rule()), tuple(inspect.signature(found).parameters)
        )
        for name, found in vars(module).items()
        if inspect.isfunction(found)
        and found.__module__ == module.__name__
        and not name.startswith("_")
    }


def _reject_imports(tree: ast.Module, place: str) -> None:
    """An oracle must not import the library that it judges, directly or through another one."""
    for node in ast.walk(tree):
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
                raise CourseError(
                    f"{place}:{node.lineno}: uses {module}: an oracle uses NumPy and the "
                    "standard library, and `expect` from ci.lesson.expect"
                )


@contextlib.contextmanager
def _torch_blocked() -> Iterator[None]:
    """Make `import torch` raise ImportError in the block, in whichever way it is spelt."""
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
        raise TimeoutError(f"not done within {DEADLINE_S:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
