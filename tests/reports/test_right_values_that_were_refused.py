"""Right values that differed, because of their rounding.

The cases are from this project's own reviews.
"""

from typing import Any

import numpy as np
import pytest
import torch

from ci.judge import verdicts
from ci.judge.compare import Comparison
from ci.judge.outcome import Outcome
from ci.lesson import oracle, reader
from ci.lesson.expect import Rule
from ci.lesson.lesson import find_lessons
from ci.lesson.value import _decode, encode, expected_value, with_scale
from ci.plan.planner import Run
from tests.conftest import GRADIENT, ORACLE, ROOT, Read, executions

FLOAT32 = {"dtype": "float32"}
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "a skewed variance": ("02", {"samples": 100, "seed": 29497}),
    "a limit beside a power of two": ("03", {"limit": 1029.981934623732}),
    "a small output": ("05", {"batch": 1, "features": 18, "hidden": 200, "seed": 4266831874}),
    "a gradient that cancels": (
        "05",
        FLOAT32 | {"batch": 64, "features": 1, "hidden": 8, "seed": 272356814, "world_size": 2},
    ),
    "weights that swing": (
        "08",
        FLOAT32 | {"batch": 1, "features": 1, "steps": 20, "lr": 1.0, "seed": 972612480},
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The course's lessons with these parameters."""
    lessons = {path.stem[:2]: reader.read(path) for path in find_lessons(ROOT / "lessons")}
    runs = {
        name: Run(lessons[lesson], {**lessons[lesson].defaults, **parameters})
        for name, (lesson, parameters) in SETS.items()
    }
    folder = tmp_path_factory.mktemp("runs")
    done = {e.run.key: e for e in executions(list(runs.values()), folder, slots=2)}
    return {
        name: verdicts.judge(done[run.key], oracle.load(run.lesson)) for name, run in runs.items()
    }


@pytest.mark.kernel
@pytest.mark.parametrize("name", SETS)
def test_a_right_lesson_is_verified(outcomes: dict[str, Outcome], name: str) -> None:
    """With parameters for which a tolerance relative to the result was too narrow."""
    differs = [result for result in outcomes[name].results if not result.green]
    assert outcomes[name].status == "verified", differs


def compare(shown: Any, expected: Any, terms: Any = 0, dtype: str = "float32") -> Comparison:
    """Compare a value with that of its oracle, whose terms have these sizes."""
    comparison = Comparison(Rule(), {"dtype": dtype})
    wanted = with_scale(expected_value(expected), expected_value(terms))
    comparison.compare(_decode(encode(shown)), wanted)
    return comparison


def test_rounding_is_relative_to_the_terms() -> None:
    """The difference of nearly equal numbers is as wrong as the numbers."""
    x = torch.tensor([1.0000001, 3.0])
    shown, expected = x[:1] - 1, np.array([1.0000001 - 1])
    assert compare(shown, expected).faults
    assert not compare(shown, expected, np.array([2.0])).faults
    parts, wanted = {"a": shown, "b": x[1:]}, {"a": expected, "b": np.array([3.0])}
    assert compare(parts, wanted, {"a": 0.0, "b": 9.0}).faults
    assert not compare(parts, wanted, {"a": 2.0, "b": 0.0}).faults
    assert not compare(parts, wanted, 2).faults
    assert compare({**parts, "b": x[1:] + 1e-4}, wanted, 2).faults


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_below_the_smallest_normal_one(dtype: str) -> None:
    """They have fewer digits, and their rounding is absolute."""
    tiny = float(torch.finfo(getattr(torch, dtype)).smallest_normal) / 1000
    right = torch.tensor([tiny, tiny / 3], dtype=getattr(torch, dtype))
    assert not compare(right, np.array([tiny, tiny / 3]), dtype=dtype).faults
    assert compare(right * 1.1, np.array([tiny, tiny / 3]), dtype=dtype).faults
    assert compare(right * 0, np.array([tiny, tiny / 3]), dtype=dtype).faults
    assert compare(right, np.zeros(2), dtype=dtype).faults


TERMS = {
    "not a function": (3, "terms=3 must be a function"),
    "infinite": ("lambda size: np.inf", "the terms of a value must be finite"),
    "text": ("lambda size: 'x'", "its oracle failed"),
    "an unknown argument": ("lambda sizes: 1", "missing 1 required positional argument: 'sizes'"),
}


@pytest.mark.parametrize("case", TERMS)
def test_terms_that_are_no_sizes_are_named(read: Read, case: str) -> None:
    """In one line."""
    terms, message = TERMS[case]
    lesson = read(GRADIENT, expected=ORACLE.replace("@expect(", f"@expect(terms={terms}, "))
    with pytest.raises(Exception, match=message) as caught:
        oracle.load(lesson)["gradient"].value({"size": 4})
    assert type(caught.value).__name__ in ("CourseError", "ScriptError")
    assert "\n" not in str(caught.value)


def test_the_terms_are_computed_from_the_same_arguments(read: Read) -> None:
    """Or from some of them."""
    oracles = ORACLE.replace("@expect(", "@expect(terms=lambda size: [size, -7], ")
    value = oracle.load(read(GRADIENT, expected=oracles))["gradient"].value({"size": 4})
    assert value.scale == 7
