"""Expected values: the functions in lessons/expected, which derive them without torch."""

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

from ci.errors import CourseError, nearest
from ci.lesson.expect import Rule
from ci.lesson.reader import Lesson

DEADLINE_S = 30.0  # for a function that computes a few numbers
LOADERS = {"__import__", "eval", "exec", "importlib", "runpy", "subprocess", "ctypes"}


@dataclass(frozen=True)
class Oracle:
    """The expected value of one check: a function of lesson parameters and givens."""

    function: Callable[..., Any]
    rule: Rule
    wants: tuple[str, ...]
    _values: dict[bytes, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def derivation(self) -> str:
        """Why the value is what it is, in the words of the oracle's docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split())

    def value(self, known: Mapping[str, Any]) -> Any:
        """The expected value, from copies of the parameters and givens that it wants.

        It is computed once, for the check and for how runs agree, and not to be changed. Raises
        CourseError, with the reason, where the oracle fails or does not come to an end.
        """
        arguments = pickle.dumps({name: known[name] for name in self.wants})
        try:
            if arguments not in self._values:
                with _deadline():
                    self._values[arguments] = self.function(**pickle.loads(arguments))
            return self._values[arguments]
        except (Exception, SystemExit) as error:  # whatever it raises is the course's fault
            raise CourseError(f"its oracle: {type(error).__name__}: {error}") from None


def load(lesson: Lesson) -> dict[str, Oracle]:
    """The oracles of a lesson, one for each check that shows a value, no more and no less.

    Raises CourseError where one is missing, left over, imports torch, or wants an unknown name.
    """
    path = lesson.path.parent / "expected" / lesson.path.name
    place = f"{lesson.path.parent.name}/expected/{path.name}"
    oracles = _import(path, place) if path.exists() else {}
    for check in lesson.checks:
        if check.kind != "raises" and check.name not in oracles:
            raise CourseError(
                f"{lesson.where(check.cell)}: {check.kind} '{check.name}' has no function "
                f"of that name in {place}"
            )
    names = {check.name for check in lesson.checks if check.kind != "raises"}
    known = {*lesson.parameters, *(c.name for c in lesson.checks if c.kind == "given")}
    exercises = {exercise.name for exercise in lesson.exercises}
    for name, oracle in oracles.items():
        line = oracle.function.__code__.co_firstlineno
        if name not in names:
            raise CourseError(f"{place}:{line}: '{name}' is no check of {lesson.name}")
        for word in oracle.wants:
            if word in known - {*lesson.parameters} and name in exercises:
                raise CourseError(
                    f"{place}:{line}: {name}({word}): a given, which students' exercises don't have"
                )
            if word not in known:
                hint = nearest(word, sorted(known))
                raise CourseError(
                    f"{place}:{line}: {name}({word}): not a parameter or given of the lesson{hint}"
                )
        if not oracle.derivation:
            raise CourseError(f"{place}:{line}: '{name}' has no docstring: how is it derived?")
    return oracles


def _import(path: Path, place: str) -> dict[str, Oracle]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise CourseError(f"{place}:{error.lineno or 1}: not Python: {error.msg}") from None
    except ValueError as error:  # not UTF-8, or a NUL
        raise CourseError(f"{place}: not Python: {error}") from None
    _refuse_imports(tree, place)
    spec = importlib.util.spec_from_file_location(f"expected_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        with _deadline():
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


def _refuse_imports(tree: ast.Module, place: str) -> None:
    """An oracle that imports what it judges, or what may import it, is no oracle."""
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
def _deadline() -> Iterator[None]:
    """Raise TimeoutError in the block when it takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {DEADLINE_S:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
