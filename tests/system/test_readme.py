"""What README.md promises."""

import re
from pathlib import Path

import pytest

from ci.judge import verdicts
from ci.lesson import oracle, reader
from ci.plan import planner
from tests.conftest import executions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.kernel
def test_the_lesson_in_ten_lines_is_verified(tmp_path: Path) -> None:
    """The example, as a reader would copy it, for the values that the README names."""
    script, expected = re.findall(r"```python\n(.*?)```", README, re.S)
    path = tmp_path / "lessons" / "09_mean.py"
    (path.parent / "expected").mkdir(parents=True)
    path.write_text(script)
    (path.parent / "expected" / path.name).write_text(expected)
    lesson = reader.read(path)
    runs = planner.runs([lesson], ["size=2,5,100"], [])
    outcomes = [
        verdicts.judge(execution, oracle.load(lesson))
        for execution in executions(runs, tmp_path / "runs")
    ]
    assert [outcome.status for outcome in outcomes] == ["verified"] * 3
    assert len(script.splitlines()) <= 10


def test_both_languages_have_the_same_commands() -> None:
    """The Chinese README is not a version behind."""
    chinese = (ROOT / "README.zh.md").read_text()
    commands = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert len(commands) == 3
    assert all(command in chinese for command in commands)


def test_what_the_readme_links_to_exists() -> None:
    """No link into the project is dead."""
    for name in ("README.md", "README.zh.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name}: {target}"
