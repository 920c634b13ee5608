"""Compare the answer to an exercise with its expected value, by the rules of the course's checks.

The exercises' notebooks contain the source of this module, with the source of `tolerances` in the
place of its import. It needs only NumPy, and takes torch's tensors as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ci.judge.tolerances import (
    first_unequal,
    largest_deviation,
    relative_tolerance,
    smallest_scale,
)

# Each message in English and in Chinese.
MESSAGES = {
    "blank": ("`...` is still there: replace it with your own code", "`...` 还没有填写"),
    "odd": ("a {}, which can't be compared", "得到的是：{}，无法比较"),
    "kind": ("{} where {} is expected", "得到的是：{}；应为：{}"),
    "items": ("its items are {}; expected are {}", "各项为 {}，应为 {}"),
    "shape": ("shape {} where {} is expected", "形状为 {}，应为 {}"),
    "dtype": ("dtype {} where {} is expected", "数据类型为 {}，应为 {}"),
    "far": ("largest difference {:.3g}{}, allowed is {:.3g}", "最大差异为 {:.3g}{}，允许 {:.3g}"),
    "other": ("{!r}{} is not the expected value", "{!r}{} 不是预期值"),
    "at": (" at {}", "（位于 {}）"),
    "array": ("a tensor or array of shape {}", "形状为 {} 的张量或数组"),
    "sequence": ("a list or tuple of {}", "{} 项的列表或元组"),
    "mapping": ("a dict of {}", "{} 项的字典"),
    "float": ("a Python float", "Python 浮点数"),
    "plain": ("{!r}", "{!r}"),
}


def check_answer(
    name: str,
    answer: Any,
    expected: Any,
    *,
    dtype: str = "float32",
    rel: float | None = None,
    absolute: float = 0.0,
    elementwise: bool = False,
    scale: float = 0.0,
    language: str = "en",
) -> None:
    """Print a tick if `answer` is the `expected` value; else raise AssertionError, whose message
    explains in one line what is wrong.

    An expected array of float64 stands for a tensor or array of `dtype`, on any device. Allowed is
    a difference of `rel` times the largest expected element of an array, or times each element if
    `elementwise`, or times `scale` if that is larger, plus `absolute`.
    """
    messages = {key: texts[language == "zh"] for key, texts in MESSAGES.items()}
    check = _SelfCheck(dtype, rel, absolute, elementwise, scale, messages)
    for fault in check.faults(answer, expected):
        raise AssertionError(f"✗ {name}{'：' if language == 'zh' else ': '}{fault}")
    print(f"✓ {name}")


@dataclass(frozen=True)
class _SelfCheck:
    dtype: str
    rel: float | None
    absolute: float
    elementwise: bool
    scale: float
    messages: Mapping[str, str]

    def faults(self, answer: Any, expected: Any, path: str = "") -> Iterator[str]:
        """What is wrong with the part of an answer at `path`."""
        expected_kind, wanted, dtype, _ = _read(expected)
        if expected_kind in ("plain", "float") and isinstance(answer, np.generic):
            answer = answer.item()  # NumPy is among the imports: np.float64(0.5) is as good as 0.5
        kind, shown, shown_dtype, device = _read(answer)
        if dtype == "float64" and expected_kind == "array":
            dtype = self.dtype
        where = f"{path}: " if path else ""
        if kind in ("blank", "odd"):
            yield where + self._say(kind, shown)
        elif kind != expected_kind:
            found, needed = self._describe(kind, shown), self._describe(expected_kind, wanted)
            yield where + self._say("kind", found, needed)
        elif kind in ("sequence", "mapping"):
            if [*shown] != [*wanted]:
                yield where + self._say("items", ", ".join(shown) or "-", ", ".join(wanted) or "-")
                return
            for key in shown:
                yield from self.faults(shown[key], wanted[key], f"{path}[{key}]")
        elif kind == "plain":
            if (type(shown), shown) != (type(wanted), wanted):
                yield where + self._say("other", shown, "")
        elif shown.shape != wanted.shape:
            yield where + self._say("shape", shown.shape, wanted.shape)
        elif shown_dtype != dtype:
            yield where + self._say("dtype", shown_dtype, dtype)
        else:
            yield from (where + fault for fault in self._numbers(shown, wanted, dtype, device))

    def _numbers(self, shown: Any, expected: Any, dtype: str, device: str) -> Iterator[str]:
        if (index := first_unequal(shown, expected)) is not None:
            yield self._say("other", shown[index].item(), self._at(index))
        elif expected.dtype.kind in "fc":
            rel = self.rel if self.rel is not None else relative_tolerance(dtype, device) or 0.0
            scale = max(self.scale, smallest_scale(expected, dtype))
            worst = largest_deviation(shown, expected, rel, self.absolute, self.elementwise, scale)
            if not worst.is_allowed:
                yield self._say("far", worst.difference, self._at(worst.index), worst.allowed)

    def _say(self, key: str, *values: Any) -> str:
        return self.messages[key].format(*values)

    def _at(self, index: tuple[int, ...]) -> str:
        return self._say("at", list(index)) if index else ""

    def _describe(self, kind: str, value: Any) -> str:
        if kind in ("sequence", "mapping"):
            return self._say(kind, len(value))
        return self._say(kind, value.shape if kind == "array" else value)


def _read(value: Any) -> tuple[str, Any, str, str]:
    """The kind of a value, the part of it that is compared, its dtype and its device."""
    if value is ...:
        return "blank", value, "", ""
    if value is None or type(value) in (bool, int, str):
        return "plain", value, "", ""
    if type(value) is float:
        return "float", np.float64(value), "float64", "cpu"
    if type(value) is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind in "biufc":
            return "array", value, str(value.dtype), "cpu"
        return "odd", type(value).__name__, "", ""
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
