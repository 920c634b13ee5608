"""Chinese in figures: its glyphs are drawn, and what no font has is named.

Cases without an address are from this project's own reviews.
"""

import re
from contextlib import closing
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from ci.execute.servers import Servers
from ci.handout.figure_font import with_font
from ci.handout.translations import translations
from ci.lesson import reader
from tests.conftest import Executed, executed, write_lesson
from tests.worker.test_forked import FreshExecutor

DRAW = """
plt.title("损失函数 $L$", fontweight="bold")
plt.xlabel("迭代次数")
plt.ylabel("$x_中$")
plt.plot([1, -2], label="训练集")
plt.legend()
plt.tight_layout();
"""
CHARACTERS = 11  # different Chinese characters
SETTINGS = {
    "as it is": "",
    "with serifs": 'plt.rcParams["font.family"] = "serif"',
    "as in Chinese lessons": (
        'plt.rcParams["font.sans-serif"] = ["SimHei"]; plt.rcParams["axes.unicode_minus"] = False'
    ),
    "with a family of its own": 'plt.rcParams["font.family"] = "Microsoft YaHei"',
    "in a style": 'plt.style.use("ggplot")',
    "with other formulas": 'plt.rcParams["mathtext.fontset"] = "stix"',
    "with TeX's formulas": 'plt.rcParams["mathtext.fontset"] = "cm"',
    "without warnings": 'import warnings; warnings.simplefilter("ignore")',
}
REFUSED = {
    "a character without a glyph": 'plt.title("한 🧪");',
    "in a formula": 'plt.title("$x$ 🧪");',
    "where it is shown": 'plt.plot([1])\nplt.title("🧪")\nplt.show()',
    "where warnings are off": 'import warnings; warnings.simplefilter("ignore"); plt.title("🧪");',
}
IMPORT = "# %%\nimport matplotlib.pyplot as plt\n"


def run(folder: Path, *cells: str, servers: Servers | None = None) -> Executed:
    """The execution of a lesson with these cells."""
    text = IMPORT + "".join(f"# %%\n{cell}\n" for cell in cells)
    return executed(reader.read(write_lesson(folder, text)), servers=servers)


@pytest.fixture(scope="module", params=["fresh", "forked"])
def drawn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, NotebookNode]:
    """The executed cells, by name, in both kinds of kernels."""
    cells = (f"plt.rcdefaults()\n{line}\n{DRAW}" for line in SETTINGS.values())
    with closing(Servers(FreshExecutor())) as fresh:
        servers = fresh if request.param == "fresh" else None
        found = run(tmp_path_factory.mktemp("course"), *cells, servers=servers)
    assert found.reason == ""
    return dict(zip(SETTINGS, found.notebook.cells[-len(SETTINGS) :], strict=True))


@pytest.mark.kernel
# https://github.com/matplotlib/matplotlib/issues/14269
@pytest.mark.parametrize("name", SETTINGS)
def test_chinese_is_drawn(drawn: dict[str, NotebookNode], name: str) -> None:
    """By outlines of the font, which every format shows, and matplotlib warns of nothing."""
    [picture] = drawn[name].outputs
    outlines = re.findall('path id="NotoSansSC-Regular-', picture.data["image/svg+xml"])
    assert len(outlines) >= CHARACTERS


@pytest.mark.kernel
@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_no_font_has_is_named(tmp_path: Path, source: str) -> None:
    """The cell fails, with the character, in place of an empty box."""
    verdict = run(tmp_path, source)
    assert re.search(r"no font of the figure has the character . \(U\+[0-9A-F]+\)", verdict.reason)
    assert verdict.cell == "cell-5"


@pytest.mark.parametrize("fonts", [["DejaVu Sans"], ["DejaVu Sans", "SimHei", "PingFang SC"]])
def test_a_student_s_notebook_takes_a_font_or_says_that_there_is_none(
    fonts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first Chinese text in code; a comment, or a lesson without figures, needs none."""
    labels = translations("zh")
    drawing = [new_code_cell("import matplotlib"), new_code_cell('print(f"损失 {1}")')]
    [imports, font, _] = with_font(drawing, labels, {})
    assert imports.source == "import matplotlib"
    monkeypatch.setattr(font_manager, "get_font_names", lambda: fonts)
    with matplotlib.rc_context():
        exec(font.source, {})
        family = matplotlib.rcParams["font.family"]
    assert family == ["sans-serif", *sorted(fonts[1:])[:1]]
    assert capsys.readouterr().out.strip() == ("" if fonts[1:] else labels["no figure font"])
    for others in (
        [new_code_cell("import matplotlib  # 损失"), new_markdown_cell("损失")],
        drawing[1:],
    ):
        assert with_font(others, labels, {}) == others
