"""Mutants of the modules that lessons import."""

from pathlib import Path

import pytest

from ci.prove import prove
from ci.prove.forks import MutantStatus
from tests.conftest import GRADIENT, ORACLE, Read
from tests.prove.test_mutants import mutants_file
from tests.prove.test_prove import USED, statuses, tried


@pytest.mark.kernel
def test_a_mistake_in_a_module_is_noticed(read: Read, tmp_path: Path) -> None:
    """A lesson imports the module with the mistake; the lessons' folder is not written to."""
    lesson = read("# %%\nfrom ranks import add\n" + USED.replace("used / 2", "add(2, -1)"))
    lesson = read(lesson.path.read_text().partition("import numpy as np\n")[2], expected=ORACLE)
    ranks = lesson.path.with_name("ranks.py")
    ranks.write_text("def add(a, b):\n    return a + b\n")
    before = ranks.stat()
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    noticed = {verdict.status for mutant, verdict in results if mutant.file == "ranks.py"}
    assert noticed == {"differs", "error"}
    assert ranks.stat() == before
    assert sorted(p.name for p in lesson.path.parent.iterdir()) == [
        "01_small.py",
        "expected",
        "ranks.py",
    ]


@pytest.mark.kernel
def test_another_lesson_may_notice_a_mistake_in_a_module(read: Read, tmp_path: Path) -> None:
    """Of the modules of a selected lesson; the mutants of other files are not tried."""
    module = "FACTOR, TERM = 4.0, 0.0\n"
    cells = '# %%\nfrom ranks import {0}\n# %% check="gradient"\n{1} * np.arange(size){2}\n'
    first = read(cells.format("FACTOR", "FACTOR", ""), expected=ORACLE)
    other = cells.format("TERM", "4.0", " + TERM")
    second = read(other, expected=ORACLE, name="02_other")
    first.path.with_name("ranks.py").write_text(module)
    lessons, file = [first, second], mutants_file(tmp_path)
    chosen = prove.choose(file, lessons, sample=None, seed=0, selected=1)
    results = list(prove.try_mutants(chosen, lessons, file, jobs=2))
    assert "02_other.py" not in {mutant.file.rpartition("/")[2] for mutant in chosen}
    assert statuses(results, "FACTOR, TERM = 4.0, 1.0") == [MutantStatus.DIFFERS]
    assert list(prove.try_mutants(chosen, [first], file, jobs=2)) != results


@pytest.mark.kernel
def test_a_mistake_in_a_package_that_is_known_is_noticed(read: Read, tmp_path: Path) -> None:
    """An earlier cell has imported another module of the package."""
    lesson = read(
        "# %%\nfrom ranks.one import one\n# %%\nfrom ranks.add import add\n"
        '# %% check="gradient"\nadd(one, 3) * 1.0 * np.arange(size)\n',
        expected=ORACLE,
    )
    package = lesson.path.with_name("ranks")
    package.mkdir()
    for name, text in {
        "__init__": "",
        "one": "one = 1\n",
        "add": "def add(a, b):\n    return a + b\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    assert statuses(results, "return a - b") == [MutantStatus.DIFFERS]


@pytest.mark.kernel
def test_an_error_in_a_figure_is_noticed(read: Read, tmp_path: Path) -> None:
    """Figures are executed for the mutants that no check notices, but nothing else about them."""
    figure = '# %% tags=["figure"]\nheight = 1 + ratio(2)\n'
    lesson = read("# %%\nfrom ranks import ratio\n" + GRADIENT + figure, expected=ORACLE)
    lesson.path.with_name("ranks.py").write_text("def ratio(a):\n    return 3 / a\n")
    results = tried(lesson, mutants_file(tmp_path), sample=None)
    found = {m.after: verdict.status for m, verdict in results if m.file == "ranks.py"}
    assert found == {"return 4 / a": "survived", "return 3 * a": "survived", "pass": "error"}
