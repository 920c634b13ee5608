"""How far runs agree that computed the same values in another way."""

from typing import Any

import numpy as np
import pytest

from ci.judge import agreement, verdicts
from ci.judge.agreement import Matrix
from ci.judge.outcome import Outcome
from ci.lesson import oracle
from ci.plan import planner
from tests.conftest import HEADER, Read, executions
from tests.judge.test_verdicts import executed

SWEPT = HEADER.replace(
    "size: int = 4  # length of the vector",
    "\n".join(
        [
            "size: int = 4  # length of the vector",
            "ranks: int = 1  # how many share the work",
            'dtype: str = "float64"  # of the numbers',
        ]
    ),
)
CELLS = '# %% check="total"\nx\n# %% check="parts"\nx\n'
EXPECTED = '''\
import numpy as np

def total(size):
    """10 i, for i = 1 ... n."""
    return 10.0 * np.arange(1, size + 1)

def parts(size, ranks):
    """i / W."""
    return np.arange(1, size + 1) / ranks
'''


def outcomes(
    read: Read,
    *runs: tuple[dict[str, Any], dict[str, Any]],
    cells: str = CELLS,
    expected: str = EXPECTED,
    status: str = "verified",
) -> list[Outcome]:
    """A verified outcome for each pair of parameters and of values shown."""
    lesson = read(cells, header=SWEPT, expected=expected)
    return [
        Outcome(
            planner.Run(lesson, {**lesson.defaults, **parameters}, tuple(parameters)),
            status,
            notebook=executed(lesson, **shown),
        )
        for parameters, shown in runs
    ]


def matrices(found: list[Outcome]) -> list[Matrix]:
    """The matrices of outcomes of one lesson."""
    lesson = found[0].run.lesson
    return agreement.matrices(found, {lesson.name: oracle.load(lesson)})


def apart(read: Read, runs: int = 2) -> tuple[list[Outcome], list[Matrix]]:
    """Runs of 1, 2, … ranks whose totals differ a little, and how they agree."""
    each = [({"ranks": w}, shown((w - 1) * 2.0**-40, w)) for w in range(1, runs + 1)]
    found = outcomes(read, *each)
    return found, matrices(found)


def shown(off: float = 0.0, ranks: int = 1, dtype: str = "float64") -> dict[str, Any]:
    """What both checks show; the last element of the total is off by so much."""
    total = np.array([10, 20, 30, 40 + off], dtype)
    return {"total": total, "parts": (np.arange(1, 5) / ranks).astype(dtype)}


def test_the_difference_is_that_of_the_two_shown_values(read: Read) -> None:
    """Relative to the largest expected value, in full precision; its check and runs are named."""
    _, [matrix] = apart(read)
    worst, one, other = matrix.worst
    assert worst.size == 2.0**-40 / 40
    assert (worst.check, one, other) == ("total", "ranks=1", "ranks=2")
    assert list(matrix.rows) == [("ranks=2", ["2.3e-14"])]


def test_what_another_number_of_ranks_changes_is_not_compared(read: Read) -> None:
    """Both runs are right, and their values differ: one check of two is common."""
    [matrix] = matrices(outcomes(read, ({"ranks": 1}, shown()), ({"ranks": 2}, shown(0, 2))))
    assert matrix.compared == "1"
    assert list(matrix.rows) == [("ranks=2", ["="])]


def test_runs_that_computed_something_else_have_no_matrix(read: Read) -> None:
    """Another size is another value, in every check."""
    longer = {"total": 10.0 * np.arange(1, 6), "parts": np.arange(1, 6)}
    assert not matrices(outcomes(read, ({"size": 4}, shown()), ({"size": 5}, longer)))


def test_two_runs_with_nothing_in_common_have_a_dash(read: Read) -> None:
    """Never a zero: sizes 4 and 5, each by one and by two ranks."""
    longer = [{"total": 10.0 * np.arange(1, 6), "parts": np.arange(1, 6) / w} for w in (1, 2)]
    [matrix] = matrices(
        outcomes(
            read,
            ({"size": 4, "ranks": 1}, shown()),
            ({"size": 4, "ranks": 2}, shown(0, 2)),
            ({"size": 5, "ranks": 1}, longer[0]),
            ({"size": 5, "ranks": 2}, longer[1]),
        )
    )
    assert matrix.names == ("size", "ranks")
    assert list(matrix.rows) == [
        ("size=4 ranks=2", ["="]),
        ("size=5 ranks=1", ["–", "–"]),
        ("size=5 ranks=2", ["–", "–", "="]),
    ]


def test_each_dtype_has_a_matrix_of_its_own(read: Read) -> None:
    """A float32 run is no nearer to a float64 run than its dtype allows: they are not compared."""
    runs = [
        ({"dtype": dtype, "ranks": ranks}, shown(off * (ranks - 1), ranks, dtype))
        for dtype, off in (("float32", 2.0**-18), ("float64", 2.0**-40))
        for ranks in (1, 2)
    ]
    found = matrices(outcomes(read, *runs))
    assert [matrix.dtype for matrix in found] == ["float32", "float64"]
    assert [matrix.runs for matrix in found] == [((1,), (2,))] * 2
    assert [matrix.worst[0].size for matrix in found] == [2.0**-18 / 40, 2.0**-40 / 40]


def test_a_python_number_has_the_dtype_of_the_lesson(read: Read) -> None:
    """`loss.item()` of a float32 tensor is no measure of float64."""
    cells = '# %% check="loss"\nx\n'
    expected = 'def loss(size):\n    """n."""\n    return float(size)\n'
    runs = [({"dtype": "float32", "ranks": ranks}, {"loss": 4.0}) for ranks in (1, 2)]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert matrix.dtype == "float32"


def test_whole_numbers_that_are_not_equal_are_infinitely_far_apart(read: Read) -> None:
    """Though the floating values beside them are equal to the bit."""
    cells = '# %% check="both"\nx\n'
    expected = 'def both(size):\n    """n, twice."""\n    return size, float(size)\n'
    runs = [({"ranks": ranks}, {"both": (3 + ranks, 4.0)}) for ranks in (1, 2)]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert list(matrix.rows) == [("ranks=2", ["inf"])]
    assert matrix.worst[0].check == "both"


def test_the_worst_tensor_stands_for_its_check(read: Read) -> None:
    """Each tensor of a mapping has its own scale."""
    cells = '# %% check="both"\nx\n'
    expected = (
        "import numpy as np\n"
        'def both(size):\n    """n, and a hundredth."""\n'
        '    return {"large": np.array([100.0]), "small": np.array([1.0])}\n'
    )
    off = 2.0**-50
    runs = [
        ({"ranks": w}, {"both": {"large": np.array([100.0]), "small": np.array([1 + w * off])}})
        for w in (1, 2)
    ]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert matrix.worst[0].size == off


@pytest.mark.parametrize(
    "value, expected",
    [
        (
            np.zeros(3),
            '@expect(zero=True)\ndef nothing(size):\n    """0."""\n    return np.zeros(3)\n',
        ),
        (
            np.ones(3),
            '@expect(constant="so")\ndef nothing():\n    """1."""\n    return np.ones(3)\n',
        ),
        (4, 'def nothing(size):\n    """n."""\n    return size\n'),
    ],
    ids=["zeros", "a constant", "a whole number"],
)
def test_what_can_not_differ_is_no_agreement(read: Read, value: Any, expected: str) -> None:
    """Zeros have no scale, a constant ties all runs, a whole number has no rounding."""
    runs = [({"ranks": ranks}, {"nothing": value}) for ranks in (1, 2)]
    imports = "import numpy as np\nfrom ci.lesson.expect import expect\n"
    cells = '# %% check="nothing"\nx\n'
    assert not matrices(outcomes(read, *runs, cells=cells, expected=imports + expected))


@pytest.mark.parametrize("drawn, compared", [(3.0, True), (5.0, False)])
def test_a_given_is_an_argument_too(read: Read, drawn: float, compared: bool) -> None:
    """Two runs that were given different numbers have nothing to agree on."""
    cells = '# %% given="a"\nx\n# %% check="twice"\nx\n'
    expected = (
        "import numpy as np\n"
        'def a():\n    """A draw."""\n    return np.zeros(1)\n'
        'def twice(a):\n    """2 a."""\n    return 2 * a\n'
    )
    runs = [
        ({"ranks": rank}, {"a": np.array([each]), "twice": np.array([2 * each])})
        for rank, each in ((1, 3.0), (2, drawn))
    ]
    assert bool(matrices(outcomes(read, *runs, cells=cells, expected=expected))) == compared


def test_what_is_expected_to_be_infinite_is_left_out_of_the_difference(read: Read) -> None:
    """inf - inf is no number, and no warning."""
    cells = '# %% check="steep"\nx\n'
    expected = (
        "import numpy as np\n"
        'def steep(size):\n    """n, and beyond."""\n    return np.array([4.0, np.inf, np.nan])\n'
    )
    value = np.array([4.0, np.inf, np.nan])
    runs = [({"ranks": ranks}, {"steep": value}) for ranks in (1, 2)]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert matrix.worst[0].size == 0


@pytest.mark.parametrize("status", ["differs", "failed", "timed out", "needs 2 GPUs"])
def test_only_verified_runs_are_compared(read: Read, status: str) -> None:
    """Two runs agree on nothing while one of them is wrong."""
    good, bad = outcomes(read, ({"ranks": 1}, shown()), ({"ranks": 2}, shown(0, 2)))
    assert not matrices([good, Outcome(bad.run, status)])


def test_one_run_has_nothing_to_agree_with(read: Read) -> None:
    """There is no matrix of one."""
    assert not matrices(outcomes(read, ({"ranks": 1}, shown())))


@pytest.mark.kernel
def test_a_secret_dependence_within_the_tolerance_shows(read: Read) -> None:
    """Each run is verified, and the matrix says that they are not the same."""
    lesson = read(
        '# %% check="total"\n10.0 * np.arange(1, size + 1) * (1 + 1e-14 * ranks)\n'
        '# %% check="parts"\nnp.arange(1, size + 1) / ranks\n',
        header=SWEPT,
        expected=EXPECTED,
    )
    oracles = oracle.load(lesson)
    runs = planner.runs([lesson], ["ranks=1,2,3"], [])
    folder = lesson.path.parents[1] / "runs"
    found = [verdicts.judge(execution, oracles) for execution in executions(runs, folder)]
    assert [outcome.status for outcome in found] == ["verified"] * 3
    found.sort(key=lambda outcome: runs.index(outcome.run))
    [matrix] = matrices(found)
    worst, one, other = matrix.worst
    assert (worst.check, one, other) == ("total", "ranks=1", "ranks=3")
    assert 1e-14 < worst.size < 3e-14
