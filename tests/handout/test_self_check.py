"""The self-check in the exercises' notebooks: its messages, and that it agrees with the course."""

import ast
import inspect
import math
import random
import re
from typing import Any

import numpy as np
import pytest
import torch

from ci.handout import notebook, self_check
from ci.handout.self_check import check_answer
from ci.judge import tolerances
from ci.judge.compare import Comparison
from ci.judge.outcome import Answer
from ci.lesson.expect import Rule
from ci.lesson.value import _decode, encode, expected_value

FOUR = np.array([0.0, 4.0, 8.0, 12.0])


def fault(answer: Any, expected: Any = FOUR, **options: Any) -> str:
    """What is wrong with an answer."""
    with pytest.raises(AssertionError) as caught:
        check_answer("gradient", answer, expected, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (..., "`...` is still there: replace it with your own code"),
        ([..., 1], "a list or tuple of 2 where a tensor or array of shape (4,) is expected"),
        (None, "None where a tensor or array of shape (4,) is expected"),
        (torch.zeros(3), "shape (3,) where (4,) is expected"),
        (torch.zeros(1, 4), "shape (1, 4) where (4,) is expected"),
        (torch.tensor(FOUR), "dtype float64 where float32 is expected"),
        (torch.tensor([0.0, 4, 8, 18]), "largest difference 6 at [3], allowed is 2.4e-05"),
        (torch.tensor([0.0, 4, 8, np.nan]), "largest difference nan at [3], allowed is 2.4e-05"),
        (torch.nn, "a module, which can't be compared"),
    ],
)
def test_a_fault_is_explained_in_a_line(answer: Any, message: str) -> None:
    """With the name of the exercise."""
    assert fault(answer) == f"✗ gradient: {message}"


def test_it_speaks_chinese_too() -> None:
    """Each message has both languages."""
    assert fault(torch.zeros(3), language="zh") == "✗ gradient：形状为 (3,)，应为 (4,)"
    assert fault(..., language="zh") == "✗ gradient：`...` 还没有填写"


def test_the_place_in_a_structure_is_named() -> None:
    """By names of items, or by their numbers."""
    assert fault({"a": [1, 3]}, {"a": [1, 2]}) == "✗ gradient: [a][1]: 3 is not the expected value"
    assert "its items are 0; expected are 0, 1" in fault([1], [1, 2])


def test_a_number_of_another_kind_is_named() -> None:
    """A Python float is neither a tensor nor an integer, as in the course's checks."""
    assert fault(np.array(2.0), 2.0).endswith(
        "a tensor or array of shape () where a Python float is expected"
    )
    assert fault(np.int64(2), 2.0).endswith("2 where a Python float is expected")
    assert fault(2, 2.0).endswith("2 where a Python float is expected")


def test_a_number_of_numpy_is_as_good_as_one_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a Python number is expected, also in a list; NumPy is among the notebook's imports."""
    check_answer("mean", np.float64(0.5), 0.5)
    check_answer("count", [np.int64(3), np.bool_(True)], [3, True])
    assert capsys.readouterr().out == "✓ mean\n✓ count\n"
    assert "largest difference" in fault(np.float64(0.6), 0.5)


def test_a_right_answer_is_ticked(capsys: pytest.CaptureFixture[str]) -> None:
    """Even if it requires a gradient, or is a view."""
    answer = torch.tensor(FOUR, dtype=torch.float32, requires_grad=True)
    check_answer("gradient", answer, FOUR)
    check_answer("gradient", (answer * 2)[None] / 2, FOUR[None])
    assert capsys.readouterr().out == "✓ gradient\n" * 2


def test_its_cell_imports_only_numpy() -> None:
    """The cell runs in a notebook where the course is not installed."""
    tops = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(notebook.self_check_source()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert tops == {"collections", "dataclasses", "typing", "numpy"}


def test_all_tolerances_come_from_the_course() -> None:
    """The cell contains the course's table of tolerances, and the self-check adds none."""
    assert inspect.getsource(tolerances).strip() in notebook.self_check_source()
    assert not re.search(r"\d[.\d]*e-\d", inspect.getsource(self_check))


# It agrees with ci.judge.compare on random values, right and wrong.

RULES = [
    Rule(),
    Rule(dtype="float64"),
    Rule(rel=1e-3, why="it is rough"),
    Rule(abs=1e-6, why="it is near zero"),
    Rule(rel=0),
    Rule(elementwise=True),
    Rule(rel=1e-4, abs=1e-9, why="it is both", elementwise=True),
]
CELL: dict[str, Any] = {}
exec(notebook.self_check_source(), CELL)


def drawn(rng: random.Random, depth: int = 0) -> Any:
    """A value as an oracle returns it."""
    kind = rng.choice(["array", "array", "array", "float", "plain", "list", "dict"])
    if kind == "list" and depth < 2:
        return [drawn(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == "dict" and depth < 2:
        return {key: drawn(rng, depth + 1) for key in rng.sample("abcd", rng.randrange(4))}
    if kind == "float":
        return rng.choice([0.1, 1 / 3, -2e300, 0.0, float("nan"), float("inf")])
    if kind == "plain":
        return rng.choice([3, -1, True, False, "text", "文"])
    shape = rng.choice([(), (1,), (4,), (2, 3), (0,), (2, 0)])
    dtype = rng.choice(["float64"] * 4 + ["float32", "int64", "bool", "complex128"])
    size = rng.choice([9, 9, 9, 9, 1e-3, 0, 1e-300, 1e300 if dtype == "float64" else 1])
    numbers = np.array([rng.uniform(-size, size) for _ in range(math.prod(shape))]).reshape(shape)
    if dtype == "float64" and numbers.size and rng.random() < 0.2:
        numbers[(0,) * numbers.ndim] = rng.choice([np.nan, np.inf, -np.inf])
    return numbers.astype(dtype) * (1 + 2j) if dtype == "complex128" else numbers.astype(dtype)


def answered(rng: random.Random, value: Any, meant: str, wrong: float) -> Any:
    """`value` as a student may show it; each part is wrong with a probability."""
    if rng.random() < wrong:
        return rng.choice([..., None, 0, 1.0, "text", [], {}, np.str_("x"), torch.zeros(4), value])
    if isinstance(value, dict):
        items = {key: answered(rng, item, meant, wrong) for key, item in value.items()}
        return dict(sorted(items.items(), reverse=True))
    if isinstance(value, list):
        items = [answered(rng, item, meant, wrong) for item in value]
        return rng.choice([list, tuple])(items)
    if isinstance(value, float):
        return value * (1 + rng.choice([0, 1e-13, 5e-12, 1e-3]))
    if not isinstance(value, np.ndarray):
        return value
    dtype = meant if value.dtype == "float64" else str(value.dtype)
    if rng.random() < wrong:
        dtype = rng.choice(["float32", "float64", "float16", "int64", "bfloat16"])
    near = np.array(value)
    with np.errstate(invalid="ignore", over="ignore"):
        if value.dtype.kind in "fc":
            near *= 1 + rng.choice([0, 0, 1e-13, 5e-12, 1e-6, 5e-6, 9e-4, 1.1e-3])
            if near.size and rng.random() < 0.1:
                near.flat[rng.randrange(near.size)] = rng.choice([0, 1, np.nan, np.inf, 1e300])
        tensor = torch.from_numpy(near).to(getattr(torch, dtype))
    if rng.random() < 0.2 and dtype != "bfloat16":
        return tensor.numpy()
    if rng.random() < 0.3 and dtype.startswith("float"):
        return tensor.clone().requires_grad_() * 1
    return tensor


def course_verdict(answer: Any, expected: Any, rule: Rule, dtype: str) -> tuple[bool, bool]:
    """Whether ci.judge.compare finds no fault, and whether its comparison is valid."""
    comparison = Comparison(rule, {"dtype": dtype, "device": "cpu"})
    try:
        comparison.compare(_decode(encode(answer)), expected_value(expected))
    except ValueError:
        return False, True
    return not comparison.faults, not comparison.invalid


def self_check_verdict(answer: Any, expected: Any, rule: Rule, dtype: str) -> bool:
    """Whether the check in the exercises' notebook passes, executed from its source."""
    call = notebook.check_call("x", Answer(expected_value(expected), rule), {"dtype": dtype}, "en")
    try:
        exec(call, {**CELL, "x": answer})
    except AssertionError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("seed", range(8))
def test_both_comparators_give_the_same_verdict(seed: int) -> None:
    """On hundreds of random answers, of which many are right and many are wrong."""
    rng = random.Random(seed)
    verdicts = []
    for _ in range(400):
        rule, expected = rng.choice(RULES), drawn(rng)
        dtype = rng.choice(["float32", "float64"])
        answer = answered(rng, expected, rule.dtype or dtype, rng.choice([0, 0, 0.2]))
        right, is_valid = course_verdict(answer, expected, rule, dtype)
        if is_valid:
            verdicts.append(right)
            passes = self_check_verdict(answer, expected, rule, dtype)
            assert passes == right, (answer, expected, rule, dtype)
    assert min(verdicts.count(True), verdicts.count(False)) > 50
