"""The header of a script: the YAML between the `# ---` of line 1 and the next one."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import yaml

from ci.lesson.fault import ScriptError, misspelt
from ci.lesson.marks import MARK, Fault

LESSON_KEYS = ["gpus", "parameters", "timeout", "checks", "languages", "prerequisites"]
JUPYTER_KEYS = ["jupytext", "kernelspec", "lesson", "language_info"]
# Numbers that YAML reads as others than they look: 010 is 8, 1:30 is 90.
ODD_NUMBER = re.compile(r"[-+]?(0[\dxXbBoO][\da-fA-F_]*|\d[\d_]*(:[0-5]?\d)+(\.\d*)?|\d+_[\d_.]*)")


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
    """Plain values only: no dates, no tags, no aliases, and each key once."""

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


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in pairs if not re.search("timestamp|merge|value", tag)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load(text: str, line: int) -> Any:
    """The value of a YAML text that begins in `line`."""
    try:
        for event in yaml.parse(text, _Loader):
            tagged = getattr(event, "tag", None) not in (None, "!")
            if tagged or isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                message = "anchors and tags (&, *, !) are not allowed: write the value itself"
                raise ScriptError(f"the header is not valid YAML: {message}", line + _row(event))
            word = getattr(event, "value", "") if not getattr(event, "style", None) else ""
            if ODD_NUMBER.fullmatch(word):
                message = f"the header: {word} is not a decimal number: write it as one"
                raise ScriptError(message, line + _row(event))
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        at = line + (mark.line if mark else 0)
        raise ScriptError(f"the header is not valid YAML: {problem}", at) from None
    except (ValueError, RecursionError, KeyError, IndexError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ScriptError(f"the header is not valid YAML: {problem}", line) from None


def _row(event: Any) -> int:
    return int(event.start_mark.line)


def _lesson(settings: Any) -> dict[str, Any]:
    """The section `lesson` below `jupyter`; another place or spelling of it is a fault."""
    if settings is None:
        return {}
    top = _pairs(settings, "the header")
    for key in top.keys() - {"jupyter"}:
        if key in {*JUPYTER_KEYS, *LESSON_KEYS} or misspelt(key, [*JUPYTER_KEYS, *LESSON_KEYS]):
            raise ScriptError(f"the header: '{key}' must be indented below `# jupyter:`")
        if guess := misspelt(key, ["jupyter"]):
            raise ScriptError(f"the header: unknown key '{key}'; did you mean '{guess}'?")
        if _is_lesson(top[key]):
            raise ScriptError(f"the header: unknown key '{key}'; did you mean 'jupyter'?")
    jupyter = _pairs(top.get("jupyter", {}), "header: 'jupyter'")
    for key, value in jupyter.items():
        if key in JUPYTER_KEYS:
            _pairs(value, f"header: '{key}'")
        elif key in LESSON_KEYS:
            raise ScriptError(f"header: '{key}' must be indented below `#   lesson:`")
        elif guess := misspelt(key, [*JUPYTER_KEYS, *LESSON_KEYS]):
            raise ScriptError(f"header: unknown key '{key}'; did you mean '{guess}'?")
        elif _is_lesson(value):
            raise ScriptError(f"header: unknown key '{key}'; did you mean 'lesson'?")
    unknown = sorted((top.keys() - {"jupyter"}) | (jupyter.keys() - {*JUPYTER_KEYS}))
    if "lesson" in jupyter and unknown:  # the rest of a damaged word, perhaps
        raise ScriptError(f"header: unknown key '{unknown[0]}' beside 'lesson': remove it")
    language = jupyter.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise ScriptError(f"header: the kernel's language must be python, not {language!r}")
    return dict(jupyter.get("lesson", {}))


def _pairs(value: Any, subject: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScriptError(f"{subject} must have `key: value` pairs")
    return value


def _is_lesson(value: Any) -> bool:
    """Whether this looks like a section `lesson`, or contains one."""
    if not isinstance(value, Mapping):
        return False
    return any(key in {"lesson", *LESSON_KEYS} or _is_lesson(part) for key, part in value.items())
