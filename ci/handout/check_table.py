"""The check table of a handout: what was checked, how close it came, and what was not verified."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ci.judge.outcome import Result
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value

MARKS = {"verified": "✓", "given": "○", "differs": "✗", "missing": "✗", "invalid": "✗"}
ROW = ("shown", "expected", "tolerance", "margin", "device")


def summary(results: Sequence[Result], say: Mapping[str, str], *, green: bool) -> str:
    """The check table in one line; `green` is false if the run itself is not verified."""
    checks = [result for result in results if result.check.kind != "given"]
    if bad := sum(not result.green for result in results):
        return say["some differ"].format(len(results), bad)
    if not green:
        return say["not verified"]
    return say["all verified"].format(len(checks)) if checks else say["no checks"]


def row(result: Result, say: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, Any]:
    """A row of the table of checks, all of it text. Of one whose cell is `hidden`, it says that."""
    if result.check.cell in hidden:
        blank = replace(result.check, cell=hidden[result.check.cell])
        told = Result(blank, result.status, derivation=say["hidden"])
        return {**row(told, say, {}), "hidden": True}
    exact = result.tolerance == "exact"
    said = {
        "shown": result.shown,
        "expected": say["as given"] if result.status == "given" else result.expected,
        "tolerance": re.sub("exact|rel|abs", lambda word: say[word[0]], result.tolerance),
        "margin": "" if exact or result.margin is None else _percent(result.margin),
        "device": ", ".join(result.devices),
    }
    return {
        "name": result.check.name,
        "cell": result.check.cell,
        "mark": MARKS[result.status],
        "status": say[result.status],
        "green": result.green,
        "message": result.message,
        "derivation": result.derivation,
        "hidden": False,
        "share": None if exact else result.margin,
        **{key: said[key] or "–" for key in ROW},
    }


def _percent(share: float) -> str:
    if share > 10:
        return "> 1000 %"
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def unverified(
    lesson: Lesson, parameters: Mapping[str, Value], results: Sequence[Result]
) -> list[str]:
    """What a reader might take for verified and was not, as keys of the handouts' words."""
    on_gpu = str(parameters.get("device", "cpu")).startswith("cuda")
    alone = parameters.get("world_size") == 1
    said = {
        "no GPU": lesson.max_gpus > 0 and not on_gpu,
        "one rank": alone and not on_gpu,
        "one GPU": alone and on_gpu,
        "givens": any(result.status == "given" for result in results),
    }
    return [key for key, holds in said.items() if holds]


def margins(results: Sequence[Result]) -> list[float]:
    """The shares of their tolerances that green checks have used; what is exact has none."""
    near = [r for r in results if r.green and r.tolerance not in ("", "exact")]
    return sorted(r.margin for r in near if r.margin is not None)


def as_json(about: Mapping[str, Any]) -> str:
    """The check table as JSON, for programs that read the page; safe inside a script element."""
    head = {key: about[key] for key in ("name", "language", "green", "summary")}
    keys = ("name", "status", "green", "message", "derivation", "hidden", *ROW, "share")
    rows = [{key: row[key] for key in keys} for row in about["rows"]]
    tail = {"facts": about["provenance"], "unverified": about["unverified"], "checks": rows}
    text = json.dumps({**head, **tail})
    return text.replace("<", "\\u003c")
