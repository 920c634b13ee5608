"""Parameters: how a lesson declares them, and which values are valid."""

import pytest

from ci.errors import UsageError
from ci.lesson import parameters
from ci.lesson.parameters import Parameter
from ci.lesson.script import ScriptError

SIZE = Parameter("size", int, 4, "length of x", minimum=2, maximum=64)
RATE = Parameter("lr", float, 0.1)
DTYPE = Parameter("dtype", str, "float32", choices=("float32", "float64"))


def test_a_literal_is_read_with_its_type_and_help() -> None:
    """The help of a parameter is the comment on its line."""
    read = parameters.read("size: int = 4  # length of x\n", 1)
    assert read == {"size": Parameter("size", int, 4, "length of x")}


def test_a_whole_number_with_annotation_float_is_a_float() -> None:
    """The default of `lr: float = 1` is 1.0."""
    assert isinstance(parameters.read("lr: float = 1", 1)["lr"].default, float)


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
    """Any other statement in the parameters cell is an error with its line."""
    with pytest.raises(ScriptError, match="only literals") as caught:
        parameters.read(f"a: int = 1\n{line}", 7)
    assert caught.value.line == 8


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [(SIZE, "7", 7), (RATE, "1e-3", 1e-3), (DTYPE, "float64", "float64")],
)
def test_a_valid_text_is_converted(parameter: Parameter, text: str, value: object) -> None:
    """A text from the command line becomes a value of the parameter's type."""
    assert value == parameter.parse(text)


@pytest.mark.parametrize("parameter", [DTYPE, Parameter("flag", bool, True)])
def test_only_numbers_have_a_range(parameter: Parameter) -> None:
    """The range of a text would not be enforced."""
    with pytest.raises(ScriptError, match=f"header: {parameter.name} must be"):
        parameters.with_rule(parameter, {"min": 3})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_a_bool_is_true_or_false(text: str, value: bool) -> None:
    """`False` is not true, as `bool(text)` would say."""
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
def test_an_invalid_text_is_rejected(parameter: Parameter, text: str, message: str) -> None:
    """The message for a wrong type, a value out of range or NaN names the parameter."""
    with pytest.raises(UsageError, match=rf"-p {parameter.name}=.*{message}"):
        parameter.parse(text)
