"""The header of a script: the YAML between the `# ---` of line 1 and the next one."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import yaml

from ci.errors import suggest
from ci.lesson.fault import ScriptError
from ci.lesson.marks import MARK, Fault

LESSON_KEYS = ["gpus", "parameters", "timeout", "checks", "languages", "prerequisites"]
JUPYTER_KEYS = ["jupytext", "kernelspec", "lesson", "language_info"]


def read(lines: Sequence[str]) -> tuple[dict[str, Any], int, list[Fault]]:
    """The section `lesson` of the header, the index of the line after the header, the faults."""
    start = 0
    while start < len(lines) and re.match(r"#!|#.*coding[:=]", lines[start]):
        start += 1
    if not lines[start:] or lines[start].rstrip() != "# ---":
        return {}, start, []
    end = start + 1
    while end < len(lines) and lines[end].startswith("#") and not MARK.match(lines[end]):
        if lines[end].rstrip() == "# ---":
            break
        end += 1
    else:
        return {}, end, [(start + 1, "the header is not closed: end it with a line `# ---`")]
    try:
        body = [line.removeprefix("#").removeprefix(" ") for line in lines[start + 1 : end]]
        for number, line in enumerate(body, start + 2):
            if re.search(r"#.*[:{]", line):
                raise ScriptError(
                    "the header: a setting after `#` is not read: move or remove it", number
                )
        return _lesson(_load("\n".join(body), start + 2)), end + 1, []
    except ScriptError as error:
        return {}, end + 1, [(error.line or start + 1, str(error))]


class _Loader(yaml.SafeLoader):
    """Plain values only, and each key once. What YAML reads as another value than it looks, such as
    the number 010 or the truth value `no`, is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, Any] = {}
        for key, value in node.value:
            name = self.construct_object(key, deep=True)
            where = key.start_mark
            if not isinstance(name, str):
                raise yaml.MarkedYAMLError(None, None, f"the key {name!r} must be a word", where)
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"a second key '{name}'", where)
            seen[name] = self.construct_object(value, deep=True)
            if seen[name] is None:
                raise yaml.MarkedYAMLError(None, None, f"the key '{name}' has no value", where)
        return seen


_Loader.yaml_implicit_resolvers = {}
NUMBER = r"[-+]?(?:0|[1-9]\d*)"
for tag, pattern in {
    "bool": r"true|True|false|False",
    "null": r"~|null|",
    "int": NUMBER,
    "float": rf"{NUMBER}\.\d*(?:[eE][-+]?\d+)?|{NUMBER}[eE][-+]?\d+",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), None)


def _load(text: str, line: int) -> Any:
    """The value of a YAML text that begins in `line`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        at = line + (mark.line if mark else 0)
        raise ScriptError(f"the header is not valid YAML: {problem}", at) from None
    except (ValueError, RecursionError, KeyError, IndexError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ScriptError(f"the header is not valid YAML: {problem}", line) from None


def _lesson(settings: Any) -> dict[str, Any]:
    """The section `lesson` below `jupyter`."""
    top = section({"top level": settings or {}}, "top level", ["jupyter"])
    jupyter = section(top, "jupyter", JUPYTER_KEYS)
    sections = {key: section(jupyter, key) for key in JUPYTER_KEYS}
    if (language := sections["kernelspec"].get("language", "python")) != "python":
        raise ScriptError(f"header: the kernel's language must be python, not {language!r}")
    return dict(section(sections, "lesson", LESSON_KEYS))


def section(
    mapping: Mapping[str, Any], name: str, keys: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """The section `name` of the header, which may only have these keys, or any."""
    found = mapping.get(name, {})
    if not isinstance(found, Mapping):
        raise ScriptError(f"header: '{name}' must have `key: value` pairs")
    for key in found:
        if keys and key not in keys:
            raise ScriptError(f"header: {name}: unknown key '{key}'{_advice(key, keys)}")
    return found


def _advice(key: str, keys: Sequence[str]) -> str:
    """What may be meant by a key that is none of `keys`."""
    for parent, children in {"lesson": LESSON_KEYS, "jupyter": JUPYTER_KEYS}.items():
        if key in children:
            return f": it must be indented below `{parent}:`"
    return suggest(key, keys)
