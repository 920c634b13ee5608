"""The instructors' CI: what the commands of its jobs do when they are run."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ci.lab.image import Image
from tests.conftest import ROOT
from tests.system.test_workflow import ARTIFACTS, BUILD, INSTALL, JOBS, PAGE, PUSH, STEPS, happens


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
