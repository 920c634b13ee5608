"""Chinese in the figures of a student's own Jupyter, which has no font of the course."""

import ast
from collections.abc import Mapping, Sequence

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ci.handout.prose_tree import HAN
from ci.lesson.code import nodes

SOURCE = """\
# {comment}
import matplotlib
from matplotlib import font_manager

chinese_fonts = {{
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "PingFang SC", "Hiragino Sans GB", "Heiti TC", "Microsoft YaHei", "SimHei",
}} & {{*font_manager.get_font_names()}}
if chinese_fonts:
    matplotlib.rcParams["font.family"] = ["sans-serif", min(chinese_fonts)]
else:
    print({advice!r})"""


def with_font(
    cells: Sequence[NotebookNode], labels: Mapping[str, str], metadata: Mapping[str, object]
) -> list[NotebookNode]:
    """`cells`, and before the first with Chinese text in its code, if any, a cell that takes a font
    of the student's machine, or says that it has none."""
    first = next((number for number, cell in enumerate(cells) if _has_chinese(cell)), None)
    if first is None or not any("matplotlib" in cell.source for cell in cells):
        return [*cells]
    source = SOURCE.format(comment=labels["figure font"], advice=labels["no figure font"])
    font = new_code_cell(source, id="figure-font", metadata=metadata)
    return [*cells[:first], font, *cells[first:]]


def _has_chinese(cell: NotebookNode) -> bool:
    """Whether a string in the code of a cell has a Chinese character."""
    constants = (node for node in nodes(cell.source) if isinstance(node, ast.Constant))
    texts = (each.value for each in constants if isinstance(each.value, str))
    return cell.cell_type == "code" and any(map(HAN.search, texts))
