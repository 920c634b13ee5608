"""How closely runs agree that computed the same values in different ways."""

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
            "ranks: int = 1  # number of ranks",
            'dtype: str = "float64"  # of the elements',
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
    """An outcome for each pair of parameters and shown values."""
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
    """The matrices of the outcomes of one lesson."""
    lesson = found[0].run.lesson
    return agreement.matrices(found, {lesson.name: oracle.load(lesson)})


def nearly_equal(read: Read, runs: int = 2) -> tuple[list[Outcome], list[Matrix]]:
    """Outcomes of runs with 1, 2, … ranks whose totals differ slightly, and their matrices."""
    each = [({"ranks": w}, shown((w - 1) * 2.0**-40, w)) for w in range(1, runs + 1)]
    found = outcomes(read, *each)
    return found, matrices(found)


def shown(off: float = 0.0, ranks: int = 1, dtype: str = "float64") -> dict[str, Any]:
    """The values that both checks show; `off` is added to the last element of `total`."""
    total = np.array([10, 20, 30, 40 + off], dtype)
    return {"total": total, "parts": (np.arange(1, 5) / ranks).astype(dtype)}


def test_the_difference_is_between_the_two_shown_values(read: Read) -> None:
    """It is relative to the largest expected value, in full precision."""
    _, [matrix] = nearly_equal(read)
    worst, one, other = matrix.worst
    assert worst.size == 2.0**-40 / 40
    assert (worst.check, one, other) == ("total", "ranks=1", "ranks=2")
    assert list(matrix.rows) == [("ranks=2", ["2.3e-14"])]


def test_a_value_that_depends_on_the_ranks_is_not_compared(read: Read) -> None:
    """Runs with 1 and 2 ranks share one of the two checks."""
    [matrix] = matrices(outcomes(read, ({"ranks": 1}, shown()), ({"ranks": 2}, shown(0, 2))))
    assert matrix.compared == "1"
    assert list(matrix.rows) == [("ranks=2", ["="])]


def test_runs_with_different_values_have_no_matrix(read: Read) -> None:
    """Every expected value depends on the size."""
    longer = {"total": 10.0 * np.arange(1, 6), "parts": np.arange(1, 6)}
    assert not matrices(outcomes(read, ({"size": 4}, shown()), ({"size": 5}, longer)))


def test_two_runs_with_nothing_in_common_have_a_dash(read: Read) -> None:
    """For example sizes 4 and 5, each with 1 and 2 ranks."""
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


def test_each_dtype_has_its_own_matrix(read: Read) -> None:
    """A float32 run is not compared with a float64 run."""
    runs = [
        ({"dtype": dtype, "ranks": ranks}, shown(off * (ranks - 1), ranks, dtype))
        for dtype, off in (("float32", 2.0**-18), ("float64", 2.0**-40))
        for ranks in (1, 2)
    ]
    found = matrices(outcomes(read, *runs))
    assert [matrix.dtype for matrix in found] == ["float32", "float64"]
    assert [matrix.runs for matrix in found] == [((1,), (2,))] * 2
    assert [matrix.worst[0].size for matrix in found] == [2.0**-18 / 40, 2.0**-40 / 40]


def test_a_python_number_has_the_dtype_of_its_run(read: Read) -> None:
    """For example, `loss.item()` of a float32 tensor is not a float64 result."""
    cells = '# %% check="loss"\nx\n'
    expected = 'def loss(size):\n    """n."""\n    return float(size)\n'
    runs = [({"dtype": "float32", "ranks": ranks}, {"loss": 4.0}) for ranks in (1, 2)]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert matrix.dtype == "float32"


def test_unequal_integers_have_an_infinite_difference(read: Read) -> None:
    """Even if the floating values of the same check are equal."""
    cells = '# %% check="both"\nx\n'
    expected = 'def both(size):\n    """n, twice."""\n    return size, float(size)\n'
    runs = [({"ranks": ranks}, {"both": (3 + ranks, 4.0)}) for ranks in (1, 2)]
    [matrix] = matrices(outcomes(read, *runs, cells=cells, expected=expected))
    assert list(matrix.rows) == [("ranks=2", ["inf"])]
    assert matrix.worst[0].check == "both"


def test_the_worst_tensor_of_a_check_counts(read: Read) -> None:
    """The scale of each tensor in a mapping is its own largest expected value."""
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
def test_values_that_cannot_differ_are_not_compared(read: Read, value: Any, expected: str) -> None:
    """Zeros have no scale, constants are the same in all runs, integers are not rounded."""
    runs = [({"ranks": ranks}, {"nothing": value}) for ranks in (1, 2)]
    imports = "import numpy as np\nfrom ci.lesson.expect import expect\n"
    cells = '# %% check="nothing"\nx\n'
    assert not matrices(outcomes(read, *runs, cells=cells, expected=imports + expected))


@pytest.mark.parametrize("drawn, compared", [(3.0, True), (5.0, False)])
def test_a_given_is_an_argument_of_its_oracle(read: Read, drawn: float, compared: bool) -> None:
    """Runs with different givens are not compared."""
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


def test_elements_expected_to_be_infinite_are_ignored(read: Read) -> None:
    """Otherwise inf - inf would give NaN and a warning."""
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
    """A wrong run is not compared with a right one."""
    good, bad = outcomes(read, ({"ranks": 1}, shown()), ({"ranks": 2}, shown(0, 2)))
    assert not matrices([good, Outcome(bad.run, status)])


def test_one_run_has_no_matrix(read: Read) -> None:
    """A matrix needs two runs."""
    assert not matrices(outcomes(read, ({"ranks": 1}, shown())))


@pytest.mark.kernel
def test_a_hidden_dependence_within_the_tolerance_is_visible(read: Read) -> None:
    """All runs are verified, and the matrix shows that they are not equal."""
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
