"""A lesson's parameters: the typed literals of its parameters cell, and the values that are valid.

They are checked here, before any kernel starts: Papermill warns of an unknown name, takes any type,
and executes a name such as `x=1;print(9)#`.
"""

import ast
import io
import json
import math
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ci.errors import CourseError, UsageError, suggest

Value = int | float | str | bool

LONGEST_S = 7 * 24 * 3600.0  # of a run; more is a mistake

TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: `help` is the comment at its line; no choices means that any value will do."""

    name: str
    type: type
    default: Value
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()

    def parse(self, text: str) -> Value:
        """The value that `text`, from the command line, stands for. Raises UsageError."""
        try:
            value = self._value(text.strip())
        except (ValueError, KeyError):
            fault = f"must be {KINDS[self.type]}, for example {self.default}"
        else:
            fault = self.fault(value) or ""
        if fault:
            help = f" ({self.help})" if self.help else ""
            raise UsageError(f"-p {self.name}={text}: {self.name}{help} {fault}")
        return value

    def _value(self, text: str) -> Value:
        if self.type is bool:
            return {"true": True, "false": False}[text.lower()]
        value: Value = self.type(text)
        return value

    def fault(self, value: Value) -> str | None:
        """Why `value`, of the right type, is not valid; None where it is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}"
        if isinstance(value, str):
            return None
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum}"
        return None


def read(source: str, place: str, line: int) -> dict[str, Parameter]:
    """The parameters that a parameters cell declares; `place` and `line` are where it stands."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        where = line + (error.lineno or 1) - 1
        raise CourseError(f"{place}:{where}: not Python: {error.msg}") from None
    comments = _comments(source)
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        parameter = _parameter(statement, comments)
        if parameter is None or parameter.name in parameters:
            raise CourseError(
                f"{place}:{line + statement.lineno - 1}: the parameters cell holds only literals, "
                "such as `size: int = 4  # what it means`, each name once"
            )
        parameters[parameter.name] = parameter
    return parameters


def with_rule(parameter: Parameter, rule: Mapping[str, Any], place: str) -> Parameter:
    """`parameter` with the range or the choices that the lesson's header gives it."""
    for word in rule:
        if word not in ("min", "max", "choices"):
            hint = suggest(word, ["min", "max", "choices"])
            raise CourseError(f"{place}: header: {parameter.name}: unknown word '{word}'{hint}")
    limits = [rule.get("min"), rule.get("max")]
    choices = rule.get("choices", [])
    if (
        not all(isinstance(limit, int | float | None) for limit in limits)
        or type(choices) is not list
    ):
        raise CourseError(
            f"{place}: header: {parameter.name} wants {{min: 1, max: 2}} or {{choices: [a, b]}}"
        )
    ruled = replace(parameter, minimum=limits[0], maximum=limits[1], choices=tuple(choices))
    if fault := ruled.fault(ruled.default):
        raise CourseError(f"{place}: its default {ruled.name} = {ruled.default} {fault}")
    return ruled


def with_values(source: str, values: Mapping[str, Value]) -> str:
    """A parameters cell with `values` for its literals; annotations and comments stay."""
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for statement in reversed(ast.parse(source).body):  # those before keep their columns
        assert isinstance(statement, ast.AnnAssign)
        assert isinstance(statement.target, ast.Name)
        assert statement.value
        old, name = statement.value, statement.target.id
        if name in values and values[name] != ast.literal_eval(old):
            row, start, end = old.lineno - 1, old.col_offset, old.end_col_offset
            lines[row] = lines[row][:start] + literal(values[name]).encode() + lines[row][end:]
    return b"".join(lines).decode()


def literal(value: Value) -> str:
    """Python that means `value`."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _parameter(statement: ast.stmt, comments: Mapping[int, str]) -> Parameter | None:
    """The parameter that a statement declares, or None where it is not a typed literal."""
    if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
        return None
    if statement.lineno != statement.end_lineno:
        return None
    kind = TYPES.get(ast.unparse(statement.annotation))
    try:
        value: Any = ast.literal_eval(statement.value) if statement.value else None
    except ValueError:
        return None
    if kind is float and type(value) is int:
        value = float(value)
    if kind is None or type(value) is not kind:
        return None
    default: Any = value
    return Parameter(statement.target.id, kind, default, comments.get(statement.lineno, ""))


def _comments(source: str) -> dict[int, str]:
    """The comment of each line that has one."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
