"""Compare an answer with the value that an exercise asks for, by the rules of the course's checks.

This text is also a cell of the exercises' notebooks: it needs NumPy alone, and takes torch's
tensors as they come.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RELATIVE = {"float64": 1e-12, "float32": 2e-6, "complex128": 1e-12, "complex64": 2e-6}
RELATIVE_ON_GPU = {"float32": 1e-5, "complex64": 1e-5}

SAID = {
    "blank": ("`...` is still there: put code of your own in its place", "`...` 还没有填写"),
    "odd": ("a {}, which can't be compared", "得到的是：{}，无法比较"),
    "kind": ("{} where {} is expected", "得到的是：{}；应为：{}"),
    "items": ("its items are {}; expected are {}", "各项为 {}，应为 {}"),
    "shape": ("shape {} where {} is expected", "形状为 {}，应为 {}"),
    "dtype": ("dtype {} where {} is expected", "元素类型为 {}，应为 {}"),
    "far": ("largest difference {:.3g}{}, allowed is {:.3g}", "最大差异为 {:.3g}{}，允许 {:.3g}"),
    "other": ("{!r}{} is not the expected value", "{!r}{} 不是预期值"),
    "at": (" at {}", "（位于 {}）"),
    "array": ("a tensor or array of shape {}", "形状为 {} 的张量或数组"),
    "sequence": ("a list or tuple of {}", "{} 项的列表或元组"),
    "mapping": ("a dict of {}", "{} 项的字典"),
    "float": ("a Python float", "Python 浮点数"),
    "plain": ("{!r}", "{!r}"),
}


@dataclass(frozen=True)
class Rule:
    """How an exercise is compared: the dtype of its floating arrays, and its tolerance."""

    dtype: str
    rel: float | None
    absolute: float
    elementwise: bool


def check_answer(
    name: str,
    answer: Any,
    expected: Any,
    *,
    dtype: str = "float32",
    rel: float | None = None,
    absolute: float = 0.0,
    elementwise: bool = False,
    language: str = "en",
) -> None:
    """Print a tick where `answer` is the `expected` value; else raise AssertionError, which says
    what is wrong in a line.

    Arrays of float64 in `expected` stand for ones of `dtype`; tensors may live on any device. The
    tolerance is `rel` times the largest expected number of an array, or each one's if
    `elementwise`, plus `absolute`.
    """
    words = {key: said[language == "zh"] for key, said in SAID.items()}
    rule = Rule(dtype, rel, absolute, elementwise)
    for fault in _faults(answer, expected, rule, words):
        raise AssertionError(f"✗ {name}{'：' if language == 'zh' else ': '}{fault}")
    print(f"✓ {name}")


def _faults(
    answer: Any, expected: Any, rule: Rule, words: Mapping[str, str], path: str = ""
) -> Iterator[str]:
    kind, shown, its_dtype, device = _read(answer)
    wanted, meant, dtype, _ = _read(expected)
    if dtype == "float64" and wanted == "array":
        dtype = rule.dtype
    before = f"{path}: " if path else ""
    if kind in ("blank", "odd"):
        yield before + words[kind].format(shown)
    elif kind != wanted:
        ours, theirs = _describe(kind, shown, words), _describe(wanted, meant, words)
        yield before + words["kind"].format(ours, theirs)
    elif kind in ("sequence", "mapping"):
        if shown.keys() != meant.keys():
            yield before + words["items"].format(", ".join(shown) or "-", ", ".join(meant) or "-")
            return
        for key in shown:
            yield from _faults(shown[key], meant[key], rule, words, f"{path}[{key}]")
    elif kind == "plain":
        if (type(shown), shown) != (type(meant), meant):
            yield before + words["other"].format(shown, "")
    elif shown.shape != meant.shape:
        yield before + words["shape"].format(shown.shape, meant.shape)
    elif its_dtype != dtype:
        yield before + words["dtype"].format(its_dtype, dtype)
    else:
        for fault in _numbers(shown, meant, _relative(rule, dtype, device), rule, words):
            yield before + fault


def _read(value: Any) -> tuple[str, Any, str, str]:
    """The kind of a value, what is compared of it, its dtype and its device."""
    if value is ...:
        return "blank", value, "", ""
    if value is None or type(value) in (bool, int, str):
        return "plain", value, "", ""
    if type(value) is float:
        return "float", np.float64(value), "float64", "cpu"
    if type(value) is np.ndarray or isinstance(value, np.generic):
        kind = "array" if value.dtype.kind in "biufc" else "odd"
        return kind, value, str(value.dtype), "cpu"
    if isinstance(value, list | tuple):
        return "sequence", {str(i): item for i, item in enumerate(value)}, "", ""
    if isinstance(value, dict) and len({str(key) for key in value}) == len(value):
        return "mapping", {str(key): item for key, item in value.items()}, "", ""
    if isinstance(value, type):
        return "plain", f"{value.__module__}.{value.__qualname__}", "", ""
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return "plain", str(value), "", ""
    try:
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        dtype = str(value.dtype).removeprefix("torch.")
        array = (tensor.double() if dtype == "bfloat16" else tensor).numpy()
        return "array", array, dtype, str(value.device)
    except (AttributeError, TypeError, RuntimeError):
        return "odd", type(value).__name__, "", ""


def _describe(kind: str, value: Any, words: Mapping[str, str]) -> str:
    if kind == "array":
        return words[kind].format(value.shape)
    return words[kind].format(len(value) if kind in ("sequence", "mapping") else value)


def _relative(rule: Rule, dtype: str, device: str) -> float:
    if rule.rel is not None:
        return rule.rel
    on_gpu = RELATIVE_ON_GPU if device.startswith("cuda") else {}
    return on_gpu.get(dtype, RELATIVE.get(dtype, 0.0))


def _numbers(
    shown: np.ndarray, expected: np.ndarray, rel: float, rule: Rule, words: Mapping[str, str]
) -> Iterator[str]:
    shown = shown.astype(np.float64) if shown.dtype.kind == "f" else shown
    same = (shown == expected) | ((shown != shown) & (expected != expected))
    if expected.dtype.kind in "fc":
        finite = np.isfinite(expected)
        sizes = np.where(finite, np.abs(expected), 0.0)
        if not rule.elementwise:
            sizes = np.full_like(sizes, np.max(sizes, initial=0.0))
        allowed = rel * sizes + rule.absolute
        with np.errstate(invalid="ignore"):  # inf - inf
            difference = np.where(finite, np.abs(shown - expected), 0.0)
        if not np.all(difference <= allowed):  # so that a NaN is a fault
            worst = np.argmax(np.nan_to_num(difference - allowed, nan=np.inf))
            index = np.unravel_index(worst, shown.shape)
            at = _at(index, words)
            yield words["far"].format(difference[index], at, allowed[index])
        same |= finite
    if not np.all(same):
        index = tuple(np.argwhere(~np.asarray(same))[0])
        yield words["other"].format(shown[index].item(), _at(index, words))


def _at(index: tuple[Any, ...], words: Mapping[str, str]) -> str:
    return words["at"].format([int(i) for i in index]) if index else ""
