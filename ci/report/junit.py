"""The outcomes as JUnit: a suite a run, in it a case `run` and a case for each declared check."""

from collections.abc import Sequence
from pathlib import Path

from junitparser import Attr, Failure, JUnitXml, Skipped, TestCase, TestSuite

from ci import atomic
from ci.judge.verdicts import Outcome
from ci.report import terminal


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write `junit.xml` into `folder`, whole."""
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
    case = _case(outcome, "run", run.lesson.line(outcome.at))
    case.time = 0 if outcome.status == "unchanged" else round(outcome.seconds, 3)
    if outcome.needs_gpus:
        case.result = [Skipped(outcome.status)]
    elif fault := terminal.fault_of_run(outcome):
        case.result = [Failure(str(fault), outcome.status)]
    elif outcome.status == "unchanged":
        case.system_out = outcome.verdict
    suite.add_testcase(case)
    results = {result.check.name: result for result in outcome.results}
    for check in run.lesson.checks:
        case = _case(outcome, check.name, check.line)
        result = results.get(check.name)
        if result is None:
            case.result = [Skipped(outcome.status)]
        elif not result.green:
            case.result = [Failure(str(terminal.fault_of_check(outcome, result)), result.status)]
        suite.add_testcase(case)
    return suite


def _case(outcome: Outcome, name: str, line: int) -> _Case:
    case = _Case(name, outcome.run.lesson.name)
    case.file = terminal.file(outcome.run)
    case.line = str(line)
    return case
