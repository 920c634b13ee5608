"""The outcomes as JUnit: one suite per run, with a case `run` and one case per declared check."""

from collections.abc import Sequence
from pathlib import Path

from junitparser import Attr, Failure, JUnitXml, Skipped, TestCase, TestSuite

from ci.judge.outcome import Outcome, Status
from ci.machine import atomic
from ci.report import faults


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write `junit.xml` into `folder`."""
    suites = JUnitXml("pytorch-course")
    for outcome in outcomes:
        suites.add_testsuite(_suite(outcome))
    atomic.write(folder / "junit.xml", suites.tostring().decode())


class _Case(TestCase):
    file = Attr()
    line = Attr()


def _suite(outcome: Outcome) -> TestSuite:
    run = outcome.run
    suite = TestSuite(run.name)
    case = _case(outcome, "run", run.lesson.line(outcome.cell))
    case.time = 0 if outcome.status == Status.UNCHANGED else round(outcome.seconds, 3)
    if outcome.skipped:
        case.result = [Skipped(outcome.status_text)]
    elif fault := faults.run_fault(outcome):
        case.result = [Failure(str(fault), outcome.status_text)]
    elif outcome.status == Status.UNCHANGED:
        case.system_out = outcome.verdict
    cases: list[TestCase] = [case]
    results = {result.check.name: result for result in outcome.results}
    for check in run.lesson.checks:
        case = _case(outcome, check.name, check.line)
        result = results.get(check.name)
        if result is None:
            case.result = [Skipped(outcome.status_text)]
        elif not result.green:
            case.result = [Failure(str(faults.check_fault(outcome, result)), result.status)]
        cases.append(case)
    suite.add_testcases(cases)
    return suite


def _case(outcome: Outcome, name: str, line: int) -> _Case:
    case = _Case(name, outcome.run.lesson.name)
    case.file = faults.script_path(outcome.run)
    case.line = str(line)
    return case
