"""A lesson's parameters: the typed literals of its parameters cell, and which values are valid.

Values are checked here, before any kernel starts, because Papermill only warns of unknown names,
accepts any type, and executes a name such as `x=1;print(9)#`.
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ci.errors import UsageError
from ci.lesson import script
from ci.lesson.fault import ScriptError

Value = int | float | str | bool

LONGEST_S = 7 * 24 * 3600.0  # the longest timeout of a run

TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `help` is the comment on its line; empty `choices` allow any value."""

    name: str
    type: type
    default: Value
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()

    def parse(self, text: str) -> Value:
        """The value that `text` from the command line denotes. Raises UsageError."""
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
        """What is wrong with `value`, which has the right type; None if it is valid."""
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


def read(source: str, line: int) -> dict[str, Parameter]:
    """The parameters of a parameters cell, which starts at `line`. Raises ScriptError."""
    statements = script.parse_code(source, line, "the parameters cell")
    comments = _comments(source)
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        parameter = _parameter(statement, comments)
        if parameter is None or parameter.name in parameters:
            message = (
                "the parameters cell may contain only literals with a type, each name once, "
                "such as `size: int = 4  # length of x`"
            )
            raise ScriptError(message, line + statement.lineno - 1)
        parameters[parameter.name] = parameter
    return parameters


def with_rule(parameter: Parameter, rule: Mapping[str, Any]) -> Parameter:
    """`parameter` with the range or the choices from the lesson's header. Raises ScriptError."""
    limits, choices = [rule.get("min"), rule.get("max")], rule.get("choices", [])
    valid = all(_is_limit(limit) for limit in limits) and type(choices) is list
    valid = valid and (choices != [] or "choices" not in rule)
    valid = valid and (parameter.type in (int, float) or not {"min", "max"} & rule.keys())
    if not valid or not all(_has_type(choice, parameter.type) for choice in choices):
        name = parameter.name
        raise ScriptError(f"header: {name} must be {{min: 1, max: 2}} or {{choices: [a, b]}}")
    ruled = replace(parameter, minimum=limits[0], maximum=limits[1], choices=tuple(choices))
    if fault := ruled.fault(ruled.default):
        raise ScriptError(f"header: the default {ruled.name} = {ruled.default} {fault}")
    return ruled


def _is_limit(limit: Any) -> bool:
    return limit is None or (type(limit) in (int, float) and math.isfinite(limit))


def _has_type(choice: Any, kind: type) -> bool:
    return type(choice) is kind or (kind is float and type(choice) is int)


def with_values(source: str, values: Mapping[str, Value]) -> str:
    """A parameters cell with `values` in place of its literals; annotations and comments stay."""
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for statement in reversed(ast.parse(source).body):  # from the end, so that columns stay valid
        assert isinstance(statement, ast.AnnAssign)
        assert isinstance(statement.target, ast.Name)
        assert statement.value
        old, name = statement.value, statement.target.id
        if name in values and values[name] != ast.literal_eval(old):
            i, start, end = old.lineno - 1, old.col_offset, old.end_col_offset
            lines[i] = lines[i][:start] + literal(values[name]).encode() + lines[i][end:]
    return b"".join(lines).decode()


def literal(value: Value) -> str:
    """The Python literal of `value`."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _parameter(statement: ast.stmt, comments: Mapping[int, str]) -> Parameter | None:
    """The parameter that a statement declares; None if it is not a typed literal on one line."""
    if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
        return None
    if statement.lineno != statement.end_lineno:
        return None
    annotation = statement.annotation
    kind = TYPES.get(annotation.id) if isinstance(annotation, ast.Name) else None
    try:
        value: Any = ast.literal_eval(statement.value) if statement.value else None
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    if kind is float and type(value) is int:
        value = float(value)
    if kind is None or type(value) is not kind or not _is_plain(value):
        return None
    default: Any = value
    return Parameter(statement.target.id, kind, default, comments.get(statement.lineno, ""))


def _is_plain(value: object) -> bool:
    """Whether a value can be passed on as JSON in UTF-8."""
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    return math.isfinite(value) if isinstance(value, float) else True


def _comments(source: str) -> dict[int, str]:
    """The comments, by their lines."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
