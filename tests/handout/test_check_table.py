"""The check table of a handout: its rows, margins and gaps, and the table as JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ci.handout import check_table, index
from ci.handout.translations import translations
from ci.judge.outcome import Outcome, Result
from ci.lesson.lesson import Check, Lesson
from ci.plan.planner import Run
from tests.conftest import GRADIENT, HEADER, ORACLE, Read

EN = translations("en")
CHECK = Check("gradient", "value", "cell-3", 12)
RESULT = Result(
    CHECK, "verified", "", "[0. 4.]", "[0. 4.]", "4x", "2e-6 rel", 0.125, devices=("cpu",)
)


@pytest.fixture
def lesson(read: Read) -> Lesson:
    """A lesson with one check."""
    return read(GRADIENT, expected=ORACLE)


def outcome(lesson: Lesson, parameters: dict[str, Any], *more: Result) -> Outcome:
    """A run with these parameters and results."""
    return Outcome(Run(lesson, parameters), "verified", (RESULT, *more))


def test_a_row_has_shown_and_expected_value_and_derivation() -> None:
    """In its language, with the share of the tolerance as text and as a number."""
    row = check_table.row(RESULT, translations("zh"), {})

    assert (row["shown"], row["expected"], row["derivation"]) == ("[0. 4.]", "[0. 4.]", "4x")
    assert (row["tolerance"], row["margin"], row["share"]) == ("2e-6 相对", "12 %", 0.125)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (1e-9, "< 1 %"), (1.0, "100 %"), (5e5, "> 1000 %")]
)
def test_a_margin_is_short(share: float, text: str) -> None:
    """Even if it is very small or very large."""
    assert check_table.row(replace(RESULT, margin=share), EN, {})["margin"] == text


def test_an_exact_check_has_no_margin() -> None:
    """It has no tolerance of which a share could be used."""
    row = check_table.row(replace(RESULT, tolerance="exact", margin=0.0), EN, {})

    assert (row["margin"], row["share"]) == ("–", None)


def test_a_hidden_row_says_only_that_it_is_hidden() -> None:
    """It has neither the shown nor the expected value, nor the derivation."""
    row = check_table.row(RESULT, EN, {"cell-3": "cell-2"})

    assert (row["cell"], row["hidden"], row["derivation"]) == ("cell-2", True, EN["hidden"])
    assert not {"[0. 4.]", "4x", "12 %"} & {*map(str, row.values())}


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"device": "cpu"}, ["no GPU"]),
        ({"device": "cpu", "world_size": 2}, ["no GPU"]),
        ({"device": "cpu", "world_size": 1}, ["no GPU", "one rank"]),
        ({"device": "cuda:0", "world_size": 1}, ["one GPU"]),
        ({"device": "cuda:0", "world_size": 2}, []),
        ({"device": "cuda:0"}, []),
        ({}, ["no GPU"]),
    ],
)
def test_gaps_in_the_verification_are_listed(
    lesson: Lesson, parameters: dict[str, int | str], text: list[str]
) -> None:
    """A reader could take these results for verified."""
    assert check_table.unverified(outcome(lesson, parameters)) == text


def test_a_lesson_that_uses_no_gpu_has_no_such_gap(read: Read) -> None:
    """It is the same on every device."""
    lesson = read(GRADIENT, expected=ORACLE, header=HEADER.replace("max: 1}", "max: 0}"))

    assert check_table.unverified(outcome(lesson, {"device": "cpu"})) == []


def test_a_given_was_not_verified(lesson: Lesson) -> None:
    """Only its dtype, shape and finiteness were compared."""
    given = replace(RESULT, status="given")

    assert "givens" in check_table.unverified(outcome(lesson, {"device": "cuda"}, given))


def test_each_gap_is_translated() -> None:
    """In both languages."""
    for key in ("no GPU", "one rank", "one GPU", "givens"):
        assert translations("en")[key] != translations("zh")[key]


def test_margins_are_those_of_checks_with_a_tolerance(lesson: Lesson) -> None:
    """Exact checks, failed checks and givens have none."""
    exact = replace(RESULT, tolerance="exact", margin=0.0)
    wrong = replace(RESULT, status="differs", margin=7.0)
    given = replace(RESULT, status="given", tolerance="", margin=None)

    run = outcome(lesson, {}, exact, wrong, given, replace(RESULT, margin=0.0))

    assert index.entry(run)["margins"] == [0.0, 0.125]


def test_the_table_as_json_stays_in_its_element() -> None:
    """Even if a lesson shows the end of a script; a program reads the same text again."""
    hostile = "</script><script>alert(1)</script><!--"
    rows = [check_table.row(replace(RESULT, shown=hostile), EN, {})]
    about = {"name": "03", "language": "en", "green": True, "summary": "1 check", "provenance": {}}

    text = check_table.as_json({**about, "rows": rows, "unverified": ["GPUs"], "not_compared": 2})

    assert "<" not in text
    assert json.loads(text)["checks"][0]["shown"] == hostile
    assert json.loads(text)["unverified"] == ["GPUs"]
    assert json.loads(text)["not_compared"] == 2


@pytest.mark.parametrize(
    ("count", "english", "chinese"),
    [
        (0, "1 value verified", "已核对 1 个值"),
        (
            1,
            "1 value verified, 1 printed output not compared",
            "已核对 1 个值，另有 1 处输出未核对",
        ),
        (
            5,
            "1 value verified, 5 printed outputs not compared",
            "已核对 1 个值，另有 5 处输出未核对",
        ),
    ],
)
def test_the_summary_counts_what_was_not_compared(count: int, english: str, chinese: str) -> None:
    """It never says that all is verified; a given is no verified value."""
    results = [RESULT, replace(RESULT, check=replace(RESULT.check, kind="given"), status="given")]
    assert check_table.summary(results, EN, count, green=True) == english
    assert check_table.summary(results, translations("zh"), count, green=True) == chinese
