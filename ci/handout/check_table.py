"""The check table of a handout: what was checked, how close it came, and what was not verified."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ci.handout.markdown import escape, escape_words
from ci.handout.translations import translations
from ci.judge.outcome import CheckStatus, Outcome, Result

MARKS = {
    CheckStatus.VERIFIED: "✓",
    CheckStatus.GIVEN: "○",
    CheckStatus.DIFFERS: "✗",
    CheckStatus.MISSING: "✗",
    CheckStatus.INVALID: "✗",
}
COLUMNS = ("shown", "expected", "tolerance", "margin", "device")


def contents(
    outcome: Outcome, labels: Mapping[str, str], hidden: Mapping[str, str], not_compared: int = 0
) -> dict[str, Any]:
    """The check table in one language, as text that templates can show.

    `hidden` has the cells of solutions that are not shown, with the cells of their blanks;
    `not_compared` counts the cells with outputs that the page shows and nobody compared.
    """
    results = outcome.results
    return {
        "green": outcome.green and all(result.green for result in results),
        "summary": summary(results, labels, not_compared, green=outcome.green),
        "not_compared": not_compared,
        "rows": [row(result, labels, hidden) for result in results],
        "unverified": [labels[key] for key in unverified(outcome, not_compared)],
    }


def summary(
    results: Sequence[Result], labels: Mapping[str, str], not_compared: int = 0, *, green: bool
) -> str:
    """The check table in one line; `green` is false if the run itself is not verified."""
    if bad := sum(not result.green for result in results):
        return labels["some differ"].format(len(results), bad)
    if not green:
        return labels["not verified"]
    verified = _counted("verified", compared(results), labels) or labels["no checks"]
    return verified + _counted("outputs", not_compared, labels)


def _counted(key: str, count: int, labels: Mapping[str, str]) -> str:
    words = labels[f"one {key}" if count == 1 else f"many {key}"]
    return words.format(count) if count else ""


def compared(results: Sequence[Result]) -> int:
    """How many checks compared a value; a given is not derived, so it is not compared."""
    return sum(result.check.kind != "given" for result in results)


def row(result: Result, labels: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, Any]:
    """A row of the table. The row of a hidden solution says only that it is hidden."""
    is_hidden = result.check.cell in hidden
    if is_hidden:
        blank = replace(result.check, cell=hidden[result.check.cell])
        result = Result(blank, result.status, derivation=labels["hidden"])
    share = None if result.tolerance == "exact" else result.margin
    columns = {
        "shown": result.shown,
        "expected": labels["as given"] if result.status == CheckStatus.GIVEN else result.expected,
        "tolerance": re.sub("exact|rel|abs", lambda word: labels[word[0]], result.tolerance),
        "margin": "" if share is None else _percent(share),
        "device": ", ".join(result.devices),
    }
    return {
        "name": result.check.name,
        "cell": result.check.cell,
        "mark": MARKS[result.status],
        "status": labels[result.status],
        "green": result.green,
        "message": result.message,
        "derivation": result.derivation,
        "hidden": is_hidden,
        "share": share,
        **{key: columns[key] or "–" for key in COLUMNS},
    }


def derivations(results: Sequence[Result], languages: Iterable[str]) -> list[str]:
    """What tables in these languages say of derivations, in Markdown."""
    texts = [result.derivation for result in results]
    texts += [translations(language)["hidden"] for language in languages]
    return [escape_words(text) for text in texts]


def _percent(share: float) -> str:
    if share > 10:
        return "> 1000 %"
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def unverified(outcome: Outcome, not_compared: int = 0) -> list[str]:
    """What a reader could take for verified although this run did not verify it, as keys of
    translations."""
    parameters = outcome.run.parameters
    on_gpu = str(parameters.get("device", "cpu")).startswith("cuda")
    alone = parameters.get("world_size") == 1
    gaps = {
        "no GPU": outcome.run.lesson.max_gpus > 0 and not on_gpu,
        "one rank": alone and not on_gpu,
        "one GPU": alone and on_gpu,
        "givens": any(result.status == CheckStatus.GIVEN for result in outcome.results),
        "outputs": not_compared > 0,
    }
    return [key for key, applies in gaps.items() if applies]


def as_json(about: Mapping[str, Any]) -> str:
    """The check table as JSON, for programs that read the page; safe inside a script element."""
    keys = ("name", "status", "green", "message", "derivation", "hidden", *COLUMNS, "share")
    table = {
        **{key: about[key] for key in ("name", "language", "green", "summary", "not_compared")},
        "facts": about["provenance"],
        "unverified": about["unverified"],
        "checks": [{key: row[key] for key in keys} for row in about["rows"]],
    }
    return json.dumps(table).replace("<", "\\u003c")


def as_markdown(about: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    """The lines of the check table and of the provenance, in Markdown."""
    if about["rows"]:
        yield f"## {labels['checks']}\n\n{labels['checks explained']}\n"
        columns = ["check", *COLUMNS, "derivation"]
        yield "| " + " | ".join(labels[column] for column in columns) + " |"
        yield "|---" * len(columns) + "|"
    for row in about["rows"]:
        name = f"{row['mark']} [{escape(row['name'])}](#cell-id={row['cell']})"
        fault = "" if row["green"] else f" **{row['status']}**: {escape(row['message'])}"
        cells = [name + fault, *(escape(row[column]) for column in COLUMNS)]
        cells.append(re.sub(r"(?<!\\)\|", r"\\|", escape_words(row["derivation"])))
        yield "| " + " | ".join(cells) + " |"
    if about["unverified"]:
        yield f"\n**{labels['unverified']}**\n"
        yield from (f"- {escape(gap)}" for gap in about["unverified"])
    yield f"\n## {labels['environment']}\n"
    for key, value in about["provenance"].items():
        yield f"- {escape(labels.get(key, key))}: {escape(value)}"
