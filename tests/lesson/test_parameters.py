"""Parameters and their values."""

import pytest

from ci.errors import CourseError, UsageError
from ci.lesson import parameters
from ci.lesson.parameters import Parameter

SIZE = Parameter("size", int, 4, "length of x", minimum=2, maximum=64)
RATE = Parameter("lr", float, 0.1)
DTYPE = Parameter("dtype", str, "float32", choices=("float32", "float64"))


def test_a_literal_is_read_with_its_type_and_help() -> None:
    """Annotation, default and end-of-line comment make a parameter."""
    read = parameters.read("size: int = 4  # length of x\n", "lessons/x.py", 1)
    assert read == {"size": Parameter("size", int, 4, "length of x")}


def test_a_whole_number_is_a_float_where_the_annotation_says_so() -> None:
    """`lr: float = 1` is 1.0."""
    assert isinstance(parameters.read("lr: float = 1", "x", 1)["lr"].default, float)


@pytest.mark.parametrize(
    "line",
    [
        "size = 4",
        "size: int = f()",
        "size: int = 4.5",
        "size: list = [1]",
        "size: int",
        "import os",
    ],
)
def test_only_typed_literals_are_parameters(line: str) -> None:
    """Anything else in the parameters cell is an error at its line."""
    with pytest.raises(CourseError, match=r"lessons/x\.py:8: .*only literals"):
        parameters.read(f"a: int = 1\n{line}", "lessons/x.py", 7)


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [(SIZE, "7", 7), (RATE, "1e-3", 1e-3), (DTYPE, "float64", "float64")],
)
def test_a_valid_text_is_a_value(parameter: Parameter, text: str, value: object) -> None:
    """The text of the command line becomes a value of the parameter's type."""
    assert value == parameter.parse(text)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_a_truth_value_is_true_or_false(text: str, value: bool) -> None:
    """`false` is not a text that counts as true."""
    assert Parameter("flag", bool, True).parse(text) is value


@pytest.mark.parametrize(
    ("parameter", "text", "message"),
    [
        (SIZE, "four", "must be a whole number"),
        (SIZE, "4.0", "must be a whole number"),
        (SIZE, "(1", "must be a whole number"),
        (SIZE, "1", "must be at least 2"),
        (SIZE, "65", "must be at most 64"),
        (RATE, "nan", "must be a finite number"),
        (RATE, "inf", "must be a finite number"),
        (DTYPE, "float16", "must be one of float32, float64"),
    ],
)
def test_a_bad_text_is_refused(parameter: Parameter, text: str, message: str) -> None:
    """Wrong types, values out of range and NaN are errors that name the parameter."""
    with pytest.raises(UsageError, match=rf"-p {parameter.name}=.*{message}"):
        parameter.parse(text)
