"""The mutants that the operators make, and those that a TOML file names."""

from pathlib import Path

import pytest

from ci.errors import CourseError
from ci.prove import operators
from ci.prove.mutants_file import MutantsFile
from tests.conftest import GRADIENT, ORACLE, Read

NAMED = """\
[[mutant]]
lesson = "01"
text = "4.0 *"
replacement = "4.0 +"
check = "gradient"
"""
EQUIVALENT = """\
[[equivalent]]
lesson = "01"
place = "gradient"
text = "4.0 * np.arange(size)"
replacement = "4.0 / np.arange(size)"
reason = "for the test"
"""


def mutants_file(folder: Path, text: str = "") -> MutantsFile:
    """A file of mutants with this text."""
    path = folder / "mutants.toml"
    path.write_text(text)
    return MutantsFile(path)


def mutated(text: str, kind: str) -> list[str]:
    """The text with each change of one kind."""
    found = [change for change in operators.changes(text) if change.kind == kind]
    return [text[: c.start] + c.replacement + text[c.end :] for c in found]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("f(3)", "constant", ["f(4)"]),
        ("f(0)", "constant", ["f(1)"]),
        ("f(1)", "constant", ["f(0)", "f(2)"]),
        ("f(0.5)", "constant", ["f(1.5)"]),
        ("f(x=True)", "constant", ["f(x=False)"]),
        ("(a) + (b)", "+ and -", ["(a) - (b)"]),
        ("a - b", "+ and -", ["a + b"]),
        ("a -= b", "+ and -", ["a += b"]),
        ("é * b", "* and /", ["é / b"]),
        ("(a  # 2 * 3\n / b)", "* and /", ["(a  # 2 * 3\n * b)"]),
        ("t.sum(dim=0)", "axis", ["t.sum(dim=1)"]),
        ("W.T @ x", "axis", ["W @ x"]),
        ("a < b", "comparison", ["a <= b", "a >= b"]),
        ("a is not b", "comparison", ["a is b"]),
        ("a < b == c", "comparison", ["a <= b == c", "a >= b == c", "a < b != c"]),
        ("if a:\n    b()\n", "dropped statement", ["pass\n", "if a:\n    pass\n"]),
        ("f(a, b, 2, 3)", "swapped values", ["f(b, a, 2, 3)"]),
        (
            "steps, lr = g(x), h(y)",
            "swapped values",
            ["lr, steps = g(x), h(y)", "steps, lr = h(y), g(x)"],
        ),
        ("{1: a.x, 2: b.y}", "swapped values", ["{1: b.y, 2: a.x}"]),
        ("{1: a.x, 2: b.y}", "order of items", ["{2: b.y, 1: a.x}"]),
        ("d = {1: a.x, 2: b.y}", "order of items", []),
        ("{**a, 2: b}", "order of items", []),
        ("{k: f(k) for k in x}", "order of items", ["{k: f(k) for k in reversed([*x])}"]),
        (
            "for k in x:\n    f(k)\n    d[k] = 1",
            "order of items",
            ["for k in reversed([*x]):\n    f(k)\n    d[k] = 1"],
        ),
        ("for k in x:\n    d[0] = k", "order of items", []),
        ("f(*a, *b), max(a, b)", "swapped values", ["max(a, b), f(*a, *b)"]),
        ("(a + b).detach()", "dropped method", ["(a + b)"]),
        ("x.to(kind).to(device)", "dropped method", ["x.to(device)"]),
        ("f(a, dim=1, lr=lr)", "dropped keyword", ["f(a, lr=lr)", "f(a, dim=1)"]),
        ("f(x=1, y=2)", "dropped keyword", ["f(y=2)", "f(x=1)"]),
        ("f(device=device, keepdim=True, **options)", "dropped keyword", []),
        ("x.sum(), sum(x)", "other function", ["x.mean(), sum(x)"]),
        ("max(x).min()", "other function", ["min(x).min()", "max(x).max()"]),
        ("torch.zeros(2)", "other function", ["torch.ones(2)"]),
        ("np.float64(x)", "dtype", ["np.float32(x)"]),
        ('x.astype("float32")', "dtype", ['x.astype("float64")']),
        (
            "[f(r) for r in range(world_size)]",
            "reversed ranks",
            ["[f(r) for r in range(world_size)[::-1]]"],
        ),
        ("dist.get_rank()", "reversed ranks", ["(dist.get_world_size() - 1 - dist.get_rank())"]),
    ],
)
def test_an_operator_changes_one_place(text: str, kind: str, expected: list[str]) -> None:
    """Each mutant differs from the text in that place only."""
    assert mutated(text, kind) == expected


@pytest.mark.parametrize(
    "text",
    [
        "import a.b",
        "print(1 + 1)",
        '"""About 1 + 1."""',
        "'1'",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "a // b ** c @ d",
    ],
)
def test_text_that_no_check_reads_is_left_alone(text: str) -> None:
    """Imports, prints, docstrings and annotations; also operators without a counterpart."""
    kinds = {change.kind for change in operators.changes(text)} - {"dropped statement"}
    assert kinds == set()


def test_cells_that_a_check_needs_are_mutated(tmp_path: Path, read: Read) -> None:
    """Figures, parameters and cells whose names no check needs are left alone."""
    cells = "# %%\na = 2\n# %%\nb = 3\n# %% tags=['figure']\nc = 4\n" + '# %% check="d"\na + size\n'
    lesson = read(cells.replace("'", '"'))
    generated = mutants_file(tmp_path).generated([lesson])
    assert [mutant.after for mutant in generated] == ["pass", "a = 3", "pass", "a - size"]
    assert [mutant.place for mutant in generated] == ["", "", "d", "d"]


def test_prints_are_mutated_where_their_text_is_compared(tmp_path: Path, read: Read) -> None:
    """In a cell with stdout=; in another cell, nobody would notice."""
    lesson = read(
        '# %%\nprint(a + 1)\n# %% stdout="text"\nif size == 1:\n    print(size, sep="")\n'
    )
    generated = mutants_file(tmp_path).generated([lesson])
    assert {mutant.place for mutant in generated} == {"text"}
    assert "if size != 1:" in [mutant.after for mutant in generated]
    assert "print(size)" in [mutant.after for mutant in generated]


def test_rank_programs_and_oracles_are_mutated(tmp_path: Path, read: Read) -> None:
    """Modules that the lesson imports from its folder, and its oracles, by function."""
    lesson = read("# %%\nfrom ranks import add\n" + GRADIENT, expected=ORACLE)
    ranks = lesson.path.with_name("ranks.py")
    ranks.write_text("def add(a, b):\n    return a + b\n")
    generated = mutants_file(tmp_path).generated([lesson])
    assert [m.after for m in generated if m.file == "ranks.py" and m.place == "add"] == [
        "pass",
        "return a - b",
    ]
    assert "return 5 * np.arange(size, dtype=float)" in [
        m.after for m in generated if m.kind == "oracle"
    ]
    excluded = mutants_file(tmp_path, '[[excluded]]\nfile = "ranks.py"\nreason = "tested"\n')
    assert "ranks.py" not in {mutant.file for mutant in excluded.generated([lesson])}


def test_files_that_oracles_share_are_mutated(tmp_path: Path, read: Read) -> None:
    """But not functions for `terms=`, and not files that the lesson's oracles do not name."""
    lesson = read(GRADIENT, expected="from _shared import slope\n" + ORACLE)
    folder = lesson.path.parent / "expected"
    functions = "def slope(a):\n    return 2 * a\n\n\ndef terms(a):\n    return 3 * a\n"
    (folder / "_shared.py").write_text(functions)
    (folder / "_other.py").write_text(functions)

    generated = mutants_file(tmp_path).generated([lesson])

    found = [m.after for m in generated if m.file == "expected/_shared.py"]
    assert "return 2 / a" in found and "return 3 / a" not in found
    assert "expected/_other.py" not in {mutant.file for mutant in generated}


def test_a_named_mutant_is_shown_with_its_place(tmp_path: Path, read: Read) -> None:
    """The line number, and the line before and after."""
    (mutant,) = mutants_file(tmp_path, NAMED).named([read()])
    assert str(mutant) == (
        "lessons/01_small.py:18 [gradient]: 4.0 * np.arange(size)  ->  4.0 + np.arange(size)"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4.0 *", "5.0 *", "mutant 1: '5.0 *' occurs 0 times in lessons/01_small.py (check 'grad"),
        ("4.0 *", "np", "occurs 2 times in lessons/01_small.py"),
        ('"gradient"', '"gradients"', "has no check 'gradients'; did you mean 'gradient'?"),
        ("check =", "chek =", "mutant 1: 'check' missing or unknown"),
        ("[[mutant]]", "[[mutant]", "mutants.toml: "),
        ("[[mutant]]", "[[mutants]]", "'mutants'; did you mean 'mutant'?"),
        ('check = "gradient"', 'check = "gradient"\nnth = 2', "occurs 1 times"),
    ],
)
def test_a_named_mutant_that_fits_nothing_is_an_error(
    tmp_path: Path, read: Read, old: str, new: str, message: str
) -> None:
    """The message names the entry: a text that no longer exists would prove nothing."""
    with pytest.raises(CourseError) as caught:
        mutants_file(tmp_path, NAMED.replace(old, new, 1)).named([read()])
    assert message in str(caught.value)


def test_nth_selects_an_occurrence(tmp_path: Path, read: Read) -> None:
    """An entry whose text occurs twice has to select one."""
    entry = NAMED.replace('"4.0 *"', '"np"') + "nth = 2\n"
    (mutant,) = mutants_file(tmp_path, entry).named([read()])
    assert mutant.line == 18


def test_an_equivalent_is_declared_by_place_and_text(tmp_path: Path, read: Read) -> None:
    """Only the declared change; without a replacement, all changes of the lines."""
    lesson = read()
    generated = mutants_file(tmp_path, EQUIVALENT).generated([lesson])
    declared = [mutant.after for mutant in generated if mutant.equivalent]
    assert declared == ["4.0 / np.arange(size)"]
    anything = EQUIVALENT.replace('replacement = "4.0 / np.arange(size)"\n', "")
    assert all(mutant.equivalent for mutant in mutants_file(tmp_path, anything).generated([lesson]))


def test_a_stale_declaration_is_an_error(tmp_path: Path, read: Read) -> None:
    """A declaration has to be removed together with its lines."""
    stale = EQUIVALENT.replace('text = "4.0', 'text = "5.0')
    with pytest.raises(CourseError, match="equivalent 1: no mutant of lessons/01_small.py"):
        mutants_file(tmp_path, stale).generated([read()])
