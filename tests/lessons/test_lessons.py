"""The lessons of the course: their form, and that they hold for more than their defaults."""

from typing import Any

import numpy as np
import pytest

from ci.judge import verdicts
from ci.judge.outcome import Outcome
from ci.lesson import oracle, reader
from ci.lesson.lesson import Lesson, find_lessons
from ci.lesson.parameters import Parameter, Value
from ci.lesson.value import Comparable, expected_value
from ci.plan import planner
from tests.conftest import ROOT, executions

LESSONS = ROOT / "lessons"
NAMES = [path.stem for path in find_lessons(LESSONS)]
LEAST_CHECKS = {"01": 15, "02": 32, "03": 30, "04": 22, "05": 16, "06": 9, "07": 15, "08": 18}


@pytest.fixture(scope="module", params=NAMES)
def lesson(request: pytest.FixtureRequest) -> Lesson:
    """Each lesson of the course."""
    return reader.read(LESSONS / f"{request.param}.py")


def test_each_passage_is_in_both_languages(lesson: Lesson) -> None:
    """Every English cell is followed by its Chinese neighbour, and none stands alone."""
    languages = [cell.metadata.get("lang") for cell in lesson.notebook.cells]
    for i, language in enumerate(languages):
        place = lesson.location(lesson.notebook.cells[i].id)
        if language == "en":
            assert languages[i + 1 : i + 2] == ["zh"], f"{place}: no Chinese neighbour"
        if language == "zh":
            assert languages[i - 1] == "en", f"{place}: no English neighbour"


def test_each_prose_cell_says_its_language(lesson: Lesson) -> None:
    """A prose cell without a language would stand in both handouts."""
    for cell in lesson.notebook.cells:
        assert cell.cell_type == "code" or "lang" in cell.metadata, lesson.location(cell.id)


def test_there_is_one_title_in_each_language(lesson: Lesson) -> None:
    """One first-level heading a language."""
    for language in reader.LANGUAGES:
        sources = [c.source for c in lesson.notebook.cells if c.metadata.get("lang") == language]
        titles = [line for s in sources for line in s.splitlines() if line.startswith("# ")]
        assert len(titles) == 1


def test_cells_are_short(lesson: Lesson) -> None:
    """Prose up to about 90 words, code up to 25 lines of 88 characters: they fit a page."""
    for cell in lesson.notebook.cells:
        place = lesson.location(cell.id)
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert len(lines) <= 25, place
            assert max(map(len, lines)) <= 88, place
        elif cell.metadata.get("lang") == "en" and "|---" not in cell.source:
            assert len(cell.source.split()) <= 110, place


def test_there_are_enough_checks(lesson: Lesson) -> None:
    """A lesson checks what it claims."""
    assert len(lesson.checks) >= LEAST_CHECKS.get(lesson.name[:2], 1)


def test_values_are_checked_and_not_only_claims(lesson: Lesson) -> None:
    """Each lesson has floating values among its checks: booleans alone would be claims."""
    oracles = oracle.load(lesson)
    values = [expected_value(_call(oracles, name, lesson.defaults)) for name in oracles]
    assert any(_is_floating(value) for value in values)


def _is_floating(value: Comparable) -> bool:
    numbers = (leaf.value for leaf in value.leaves() if leaf.kind in ("array", "float"))
    return any(number.dtype.kind == "f" for number in numbers)


def test_expected_values_depend_on_the_parameters(lesson: Lesson) -> None:
    """An oracle that never changes says why: it might have been copied from an output."""
    oracles = oracle.load(lesson)
    sets = [{n: _values(p)[i] for n, p in lesson.parameters.items()} for i in range(3)]
    for name, found in oracles.items():
        texts = {repr(_plain(_call(oracles, name, values))) for values in sets}
        changes = len(texts) > 1
        assert changes or found.rule.constant, f"{name} is constant, and does not say why"
        given = any(c.name == name and c.kind == "given" for c in lesson.checks)
        assert given or not (changes and found.rule.constant), f"{name} says constant, and changes"


def _values(parameter: Parameter) -> list[Value]:
    """Three valid values of a parameter, different where it can be."""
    default, least, most = parameter.default, parameter.minimum, parameter.maximum
    if parameter.choices:
        return [parameter.choices[i % len(parameter.choices)] for i in range(3)]
    if isinstance(default, bool | str):
        return [default] * 3
    step = 1 if isinstance(default, int) else default / 4
    third = least if isinstance(default, int) and least is not None else default + 3 * step
    candidates = [default, default + step, third]
    top = most if most is not None else candidates[-1]
    bottom = least if least is not None else default
    return [type(default)(min(max(value, bottom), top)) for value in candidates]


def _call(oracles: dict[str, oracle.Oracle], name: str, values: dict[str, Value]) -> Any:
    """An oracle's value; where it wants a given, that given's example."""
    found = oracles[name]
    arguments = {
        argument: values[argument] if argument in values else _call(oracles, argument, values)
        for argument in found.argument_names
    }
    return found.value(arguments).python()


def _plain(value: Any) -> Any:
    """All digits of a value, in a form that compares."""
    return [
        leaf.value.tolist() if isinstance(leaf.value, np.ndarray | np.generic) else leaf.value
        for leaf in expected_value(value).leaves()
    ]


def test_no_expected_values_without_a_lesson() -> None:
    """A lesson that was renamed takes its oracles along."""
    files = {path.stem for path in (LESSONS / "expected").glob("*.py") if path.stem[0] != "_"}
    assert files <= set(NAMES)


SETTINGS = [
    ("01", []),
    ("01", ["size=2,16"]),
    ("02", []),
    ("02", ["rows=2,5", "cols=7", "size=2,80", "samples=100", "seed=4294967295"]),
    ("03", []),
    ("03", ["seed=15,16,43,56", "dtype=float32,float64"]),
    ("03", ["size=2,64", "limit=0,1000000"]),
    ("04", []),
    ("04", ["samples=16,64", "features=1,4", "batch=2,64", "dtype=float32,float64"]),
    ("04", ["epochs=1,20", "lr=0.001", "seed=4294967295"]),
    ("05", []),
    ("05", ["world_size=1,3,4", "batch=5", "dtype=float32"]),
    ("05", ["world_size=4", "batch=3"]),
    ("06", []),
    ("06", ["world_size=1,3,4", "batch=5", "dtype=float32"]),
    ("06", ["world_size=4", "batch=3", "hidden=9"]),
    ("07", []),
    ("07", ["world_size=1,3,4", "batch=5", "dtype=float32"]),
    ("07", ["world_size=4", "batch=3"]),
    ("07", ["world_size=3", "hidden=9", "microbatches=3"]),
    ("08", []),
    ("08", ["world_size=1,3,4", "batch=5", "dtype=float32"]),
    ("08", ["world_size=4", "batch=3"]),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[list[Outcome]]:
    """Of all settings, each a list: executed together, as a course is."""
    lessons = {path.stem[:2]: reader.read(path) for path in find_lessons(LESSONS)}
    oracles = {lesson.name: oracle.load(lesson) for lesson in lessons.values()}
    planned = [planner.runs([lessons[name]], settings, [], slots=2) for name, settings in SETTINGS]
    runs = [run for several in planned for run in several]
    folder = tmp_path_factory.mktemp("runs")
    judged = {
        id(execution.run): verdicts.judge(execution, oracles[execution.run.lesson.name])
        for execution in executions(runs, folder, slots=2)
    }
    return [[judged[id(run)] for run in several] for several in planned]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "number", range(len(SETTINGS)), ids=lambda n: " ".join(map(str, SETTINGS[n]))
)
def test_a_lesson_is_verified(outcomes: list[list[Outcome]], number: int) -> None:
    """In a real kernel, with real ranks: each declared check, for each value of its parameters."""
    faults = [
        (outcome.run.label, outcome.reason, [r for r in outcome.results if not r.green])
        for outcome in outcomes[number]
        if outcome.status != "verified"
    ]
    assert faults == []
