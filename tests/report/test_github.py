"""Reports on GitHub: job summary and annotations."""

import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ci.judge.outcome import Outcome, Result, skipped_outcome
from ci.lesson.lesson import Lesson
from ci.plan import planner
from ci.report import github, report_files
from tests.conftest import GRADIENT, HEADER, Read
from tests.judge.test_agreement import nearly_equal

TEXT = HEADER.replace("size: int = 4", 'word: str = "a"  # a text\nsize: int = 4')


@pytest.fixture
def on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variable by which GitHub identifies its runners."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def differs(lesson: Lesson, parameters: dict[str, Any] | None = None, **facts: str) -> Outcome:
    """An outcome whose only check differs."""
    parameters = parameters or {}
    run = planner.Run(lesson, {**lesson.defaults, **parameters}, tuple(parameters))
    facts = {"message": "largest difference 6", "shown": "[0. 6.]", "expected": "[0. 4.]", **facts}
    return Outcome(run, "differs", (Result(lesson.checks[0], "differs", **facts),))


def rendered(outcomes: list[Outcome]) -> list[Token]:
    """The flat list of tokens that a Markdown parser finds in the summary."""
    tokens = MarkdownIt("commonmark").enable("table").parse(github.markdown(outcomes))
    return [inner for token in tokens for inner in [token, *(token.children or [])]]


def code(outcomes: list[Outcome]) -> list[str]:
    """The texts that the summary shows as code."""
    kinds = ("code_inline", "fence")
    return [token.content for token in rendered(outcomes) if token.type in kinds]


def test_a_mismatch_is_shown_in_full(read: Read) -> None:
    """Place, shown and expected value, derivation and tolerance."""
    lesson = read(GRADIENT)
    bad = differs(lesson, derivation="dy/dx_i = 4 x_i.", tolerance="2e-6 rel")
    place = lesson.location(lesson.checks[0].cell)
    [*_, block] = code([bad])
    assert block.startswith(f"01_small differs: {place}: check 'gradient' largest difference 6")
    for fact in ("[0. 6.]", "[0. 4.]", "dy/dx_i = 4 x_i.", "2e-6 rel"):
        assert fact in block


def test_a_verified_course_has_a_table_and_no_faults(read: Read) -> None:
    """Status, checks, device and time of each lesson, and its environment."""
    lesson = read(GRADIENT)
    results = (Result(lesson.checks[0], "verified", margin=0.25),)
    facts = {"torch": "2.13.0+cpu", "image": "pytorch-course:cpu (sha256:0123)"}
    good = Outcome(
        planner.Run(lesson, {}),
        "verified",
        results,
        seconds=1.25,
        environment={**facts, "cuda": ""},
    )
    text = github.markdown([good])
    assert "1 of 1 runs verified" in text
    assert "| `01_small` | verified | 1/1 | `cpu` | 1.2 s |" in text
    assert "- image: `pytorch-course:cpu (sha256:0123)`" in text
    assert not re.search("wrong|not run|cuda:", text)


def test_a_sweep_shows_how_its_runs_agree(read: Read) -> None:
    """With the text of the terminal: largest difference, check and runs."""
    outcomes, agreed = nearly_equal(read)
    text = github.markdown(outcomes, agreed)
    assert "## How the runs agree\n\n```text\n01_small, float64: the runs differ by 2.3e-14" in text
    assert "How the runs agree" not in github.markdown(outcomes)


def test_the_reason_of_a_failed_run_is_shown(read: Read) -> None:
    """With the checks that never reported."""
    lesson = read(GRADIENT)
    missing = Result(lesson.checks[0], "missing", "its cell never ran")
    [*_, block] = code([Outcome(planner.Run(lesson, {}), "timed out", (missing,), "after 600 s")])
    assert block == "01_small timed out: after 600 s\n01_small: never reported: gradient\n"


def test_a_skipped_run_is_not_a_fault(read: Read) -> None:
    """It is in a separate section."""
    text = github.markdown([skipped_outcome(planner.Run(read(GRADIENT), {}, gpus_needed=2))])
    assert "## Not run here\n\n- `01_small` needs 2 GPUs\n" in text
    assert "What is wrong" not in text


HOSTILE = ["<script>alert(1)</script>", "a | b", "`x`", "```", "````text", "@all ![](x) **b** :a:"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_a_lesson_is_not_markup(read: Read, text: str) -> None:
    """It appears literally, in the table and below it."""
    found = rendered([differs(read(GRADIENT, header=TEXT), {"word": text}, shown=text)])
    cell, *_ = [token.content for token in found if token.type == "code_inline"]
    [block] = [token.content for token in found if token.type == "fence"]
    assert cell == f"01_small word={text}"
    assert f"shown       {text}\n" in block
    assert not {"html_block", "html_inline", "image", "link_open"} & {t.type for t in found}
    assert len([token for token in found if token.type == "td_open"]) == 5


def test_the_summary_stays_within_githubs_limit(read: Read) -> None:
    """With many long faults and runs; the summary says how many it omits."""
    lesson = read(GRADIENT, header=TEXT)
    bad = [differs(lesson, {"word": "长" * 10_000}, shown="长" * 10_000) for _ in range(300)]
    text = github.markdown(bad)
    assert len(text.encode()) < 2**20
    assert "… and 250 more faults: see report.json." in text
    assert "… and 100 more runs: see report.json." in text


def test_a_summary_is_removed_with_its_report(read: Read, tmp_path: Path) -> None:
    """A run that ends early must not leave an old summary."""
    github.write([differs(read(GRADIENT))], tmp_path)
    assert (tmp_path / "summary.md").read_text().startswith("# The course: 0 of 1 runs verified\n")
    report_files.forget(tmp_path)
    assert not (tmp_path / "summary.md").exists()


@pytest.mark.usefixtures("on_github")
def test_an_annotation_has_the_line_of_the_lesson(read: Read) -> None:
    """File, line, title and message are in one line of the log."""
    lesson = read(GRADIENT)
    assert github.annotations([differs(lesson)]) == [
        f"::error file=lessons/01_small.py,line={lesson.checks[0].line},title=01_small differs"
        "::check 'gradient' largest difference 6%0A  shown       [0. 6.]%0A  expected    [0. 4.]"
    ]


@pytest.mark.usefixtures("on_github")
def test_text_from_a_lesson_cannot_add_a_command(read: Read) -> None:
    """Line breaks and per cent signs are escaped."""
    shown = "100%\r\n::error file=x::forged"
    [line] = github.annotations(
        [differs(read(GRADIENT, header=TEXT), {"word": "a,line=9::b"}, shown=shown)]
    )
    assert not set("\r\n") & set(line)
    assert "title=01_small word=a%2Cline=9%3A%3Ab differs::" in line
    assert "100%25%0A::error file=x::forged" in line


@pytest.mark.usefixtures("on_github")
def test_a_fault_without_a_cell_is_at_the_first_line(read: Read) -> None:
    """GitHub shows only annotations that have a line."""
    [line] = github.annotations([Outcome(planner.Run(read(GRADIENT), {}), "failed", reason="gone")])
    assert line == "::error file=lessons/01_small.py,line=1,title=01_small failed::gone"


@pytest.mark.usefixtures("on_github")
def test_there_are_at_most_ten_annotations(read: Read) -> None:
    """GitHub shows no more per step; the summary has all faults."""
    assert len(github.annotations([differs(read(GRADIENT))] * 11)) == 10


def test_outside_of_github_there_are_no_annotations(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are commands for the runner of GitHub."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert github.annotations([differs(read(GRADIENT))]) == []


def test_an_unchanged_run_shows_its_date(read: Read) -> None:
    """It counts as verified, and the title has the number of unchanged runs."""
    lesson = read(GRADIENT)
    run = planner.Run(lesson, lesson.defaults)
    green = Result(lesson.checks[0], "verified")
    same = Outcome(run, "unchanged", (green,), date="2026-01-01 12:00 UTC")
    text = github.markdown([same, same, Outcome(run, "verified", (green,))])
    assert text.startswith("# The course: 3 of 3 runs verified, 2 of them unchanged\n")
    assert text.count("| unchanged since 2026-01-01 12:00 UTC |") == 2
